//! Our sender key of a group is given up (spec 03 §3.4).

pub(crate) use crate::engine::send::marks::rotate;

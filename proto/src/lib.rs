//! The WhatsApp protobuf schema as prost types.

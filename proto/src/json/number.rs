//! Floating point numbers as ECMAScript prints them.
//!
//! [`float`] chooses the JSON value: a number without fraction becomes an integer, because `serde_json` prints the double
//! one as `1.0`. Exponents (from 1e21 up, below 1e-6) cannot be influenced there; [`to_string`] prints them.

use std::fmt::Write as _;
use std::io;

use serde_json::Value;

/// The JSON value of a double: integral ones as integers, −0 as 0, what is not finite as a string.
pub(super) fn float(number: f64) -> Value {
    if number.is_nan() {
        return Value::from("NaN");
    }
    if number.is_infinite() {
        return Value::from(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    if number.fract() == 0.0 {
        // ECMAScript prints the shortest digits that identify the double, then zeros; so does Display. Above 64 bits the
        // value stays a double.
        let mut digits = String::new();
        if number.abs() < 1e21 && write!(digits, "{}", number + 0.0).is_ok() {
            if let Ok(integer) = digits.parse::<i64>() {
                return Value::from(integer);
            }
            if let Ok(integer) = digits.parse::<u64>() {
                return Value::from(integer);
            }
        }
    }
    Value::from(number)
}

/// The text of a JSON value, compact, with every double in the form that `JSON.stringify` gives it (`1`, `1e+21`, `1e-7`,
/// `0.00001`).
///
/// `serde_json::to_string` gives the same text but for doubles that have an exponent in either form, such as
/// `1e+21` (`1e21`) or `0.00001` (`1e-5`).
///
/// ```
/// assert_eq!(wamd_proto::json::to_string(&serde_json::json!([1.0, 0.5, 1e21, 1e-7])), "[1,0.5,1e+21,1e-7]");
/// ```
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, EcmaFormatter);
    // Writing a `Value` to a vector cannot fail: its keys are strings, and a vector takes everything.
    let written = serde::Serialize::serialize(value, &mut serializer);
    debug_assert!(written.is_ok());
    String::from_utf8(out).unwrap_or_default()
}

/// A compact `serde_json` formatter that prints doubles as ECMAScript does; [`to_string`] uses it.
///
/// For programs that serialize the JSON form inside of something larger.
#[derive(Clone, Copy, Debug, Default)]
pub struct EcmaFormatter;

impl serde_json::ser::Formatter for EcmaFormatter {
    fn write_f32<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        writer.write_all(ecma(f64::from(value)).as_bytes())
    }

    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(ecma(value).as_bytes())
    }
}

/// `Number::toString` of ECMA-262 §6.1.6.1.20 for a finite number.
fn ecma(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let magnitude = number.abs();
    let mut out = String::new();
    if number < 0.0 {
        out.push('-');
    }
    if (1e-6..1e21).contains(&magnitude) {
        // Display writes the shortest digits without an exponent.
        out.push_str(&magnitude.to_string());
    } else {
        // LowerExp writes the same digits as `d.ddde-7`; only the plus sign is missing.
        let text = format!("{magnitude:e}");
        let plus = if magnitude >= 1.0 { "e+" } else { "e" };
        out.push_str(&text.replacen('e', plus, 1));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_ecmascript() {
        // Each text is what `JSON.stringify` of Node.js 20 printed for the number.
        let cases = [
            (1.0, "1"),
            (-3.0, "-3"),
            (0.0, "0"),
            (-0.0, "0"),
            (0.5, "0.5"),
            (6.5244, "6.5244"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1_152_921_504_606_846_976.0, "1152921504606847000"),
            (-9_223_372_036_854_775_808.0, "-9223372036854776000"),
            (18_446_744_073_709_551_615.0, "18446744073709552000"),
            (1e20, "100000000000000000000"),
            (123_456_789_012_345_680_000.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.000_001, "0.000001"),
            (0.000_012_3, "0.0000123"),
            (1e-7, "1e-7"),
            (-1.25e-9, "-1.25e-9"),
            (5e-324, "5e-324"),
        ];
        for (number, expected) in cases {
            assert_eq!(to_string(&float(number)), expected);
        }
    }

    #[test]
    fn integers_stay_integers_under_the_plain_serializer() {
        for (number, expected) in [(1.0, "1"), (-0.0, "0"), (1e15, "1000000000000000"), (2.5, "2.5")] {
            assert_eq!(float(number).to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_finite_is_a_string() {
        assert_eq!(float(f64::NAN), "NaN");
        assert_eq!(float(f64::INFINITY), "Infinity");
        assert_eq!(float(f64::NEG_INFINITY), "-Infinity");
    }
}

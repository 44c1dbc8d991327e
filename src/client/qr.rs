//! A QR code on a terminal, and as SVG.

use qrcode::{
    EcLevel, QrCode,
    render::{svg, unicode},
};

/// A text that has no QR code: it is longer than 2,953 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text does not fit into a QR code")]
pub struct QrError;

/// Draws the text of `session.qr_updated` with half blocks, dark on light whatever the terminal's colours are. About 65
/// columns and 33 lines.
///
/// # Errors
/// [`QrError`].
pub fn to_terminal(text: &str) -> Result<String, QrError> {
    // On a dark terminal the blocks are light, so dark and light change places.
    let image = code(text)?
        .render::<unicode::Dense1x2>()
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    Ok(image)
}

/// Draws the text as an SVG document.
///
/// # Errors
/// [`QrError`].
pub fn to_svg(text: &str) -> Result<String, QrError> {
    Ok(code(text)?.render::<svg::Color<'_>>().min_dimensions(256, 256).quiet_zone(true).build())
}

/// Level L keeps the code small enough for a terminal.
fn code(text: &str) -> Result<QrCode, QrError> {
    QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| QrError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linking_code_fits_into_a_terminal() {
        let text = format!("https://wa.me/settings/linked_devices#2@{}", "x".repeat(240));
        let drawn = to_terminal(&text).expect("fits");
        assert!(drawn.lines().count() <= 40 && drawn.lines().all(|line| line.chars().count() <= 80));
        assert!(to_svg(&text).expect("fits").contains("<svg"));
        assert_eq!(to_terminal(&"x".repeat(3_000)), Err(QrError));
    }
}

//! Blots secrets out of texts (promise P11): raw, escaped, percent-encoded or in base64.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::exchange::percent_encoded;
use super::secret::Secret;

/// What stands where a secret stood.
pub const BLOT: &str = "***";

/// A shorter secret would blot out ordinary words.
const SECRET_BYTES_MIN: usize = 6;

/// What browsers and the URL standard leave as it is in a form differs from RFC 3986 in two signs.
const FORM_ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// Knows secrets in every form in which they may turn up. Clones share them.
#[derive(Clone, Default)]
pub struct Blotter {
    needles: Arc<[String]>,
}

impl fmt::Debug for Blotter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blotter({} forms)", self.needles.len())
    }
}

impl Blotter {
    /// Knows these. Those of fewer than 6 bytes are passed over.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Self {
        let mut needles = Vec::new();
        for secret in secrets {
            let plain = secret.reveal();
            if plain.len() < SECRET_BYTES_MIN {
                continue;
            }
            let escaped = [plain.escape_default().to_string(), plain.escape_debug().to_string()];
            for form in [plain.to_owned()].into_iter().chain(escaped) {
                let json = serde_json::Value::from(form.as_str()).to_string();
                needles.push(json.get(1..json.len() - 1).unwrap_or_default().to_owned());
                needles.push(form);
            }
            let of_a_form = utf8_percent_encode(plain, FORM_ENCODED).to_string();
            for encoded in [percent_encoded(plain), of_a_form] {
                needles.push(encoded.to_lowercase());
                needles.push(encoded.replace("%20", "+"));
                needles.push(encoded);
            }
            needles.extend(base64_forms(plain.as_bytes()));
        }
        needles.retain(|needle| needle.len() >= SECRET_BYTES_MIN);
        Self::of_needles(needles)
    }

    /// Knows these as well.
    #[must_use]
    pub fn knowing_too(&self, secrets: &[Secret]) -> Self {
        Self::of_needles([&*self.needles, &*Self::new(secrets).needles].concat())
    }

    fn of_needles(mut needles: Vec<String>) -> Self {
        // The longest first: a part of a secret must not be taken out of the whole.
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles: needles.into() }
    }

    /// The text without any of them.
    #[must_use]
    pub fn blot<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for needle in &*self.needles {
            if clean.contains(needle.as_str()) {
                clean = Cow::Owned(clean.replace(needle.as_str(), BLOT));
            }
        }
        clean
    }
}

/// The base64 of a secret wherever it begins in what is encoded, both alphabets, without the
/// letters that also depend on its neighbours.
fn base64_forms(secret: &[u8]) -> impl Iterator<Item = String> {
    (0..3_usize).flat_map(move |before| {
        let padded: Vec<u8> =
            std::iter::repeat_n(0, before).chain(secret.iter().copied()).collect();
        let letters = STANDARD_NO_PAD.encode(&padded);
        let first = (before * 8).div_ceil(6);
        let whole = padded.len() * 8 / 6;
        let form: String = letters.chars().take(whole).skip(first).collect();
        let url_safe = form.replace('+', "-").replace('/', "_");
        [form, url_safe]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_blotted_out_in_every_form() {
        let secret = "s3cr\u{e9}t/\"word\" +x";
        let blotter = Blotter::new(&[Secret::new(secret)]);
        let in_base64 = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{secret} and more"));
        let forms = [
            secret.to_owned(),
            format!("{secret:?}"),
            serde_json::to_string(secret).unwrap(),
            "s3cr%C3%A9t%2F%22word%22%20%2Bx".to_owned(),
            "s3cr%c3%a9t%2f%22word%22%20%2bx".to_owned(),
            "s3cr%C3%A9t%2F%22word%22+%2Bx".to_owned(),
            in_base64(""),
            in_base64("u"),
            in_base64("us"),
            in_base64("user:").replace('+', "-").replace('/', "_"),
        ];
        for form in forms {
            let text = blotter.blot(&form);
            assert!(text.contains(BLOT), "{form} in {text}");
            for word in ["s3cr", "word"] {
                assert!(!text.contains(word), "{form} in {text}");
            }
        }
    }

    #[test]
    fn a_short_secret_does_not_blot_out_words() {
        assert_eq!(Blotter::new(&[Secret::new("er")]).blot("delivered"), "delivered");
        assert_eq!(Blotter::default().blot("delivered"), "delivered");
    }
}

//! When a server's certificate ends.
//!
//! Of a certificate (RFC 5280) only one field is wanted, and what is read has passed the check of
//! the TLS library before: a walk over its first fields does.

use crate::model::time::Wall;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of the certificate that an answer came with; `None` without TLS.
pub(super) fn end_of(response: &reqwest::Response) -> Option<Wall> {
    let info = response.extensions().get::<reqwest::tls::TlsInfo>()?;
    not_after(info.peer_certificate()?)
}

/// `notAfter` of a certificate in DER.
fn not_after(der: &[u8]) -> Option<Wall> {
    let (_, certificate, _) = element(der)?;
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (kind, end, _) = element(element(validity)?.2)?;
    time(kind, std::str::from_utf8(end).ok()?)
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |sum, &byte| {
            sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(byte)))
        });
        (length?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ`, where years from 50 are of the last century, or `YYYYMMDDhhmmssZ`.
fn time(kind: u8, text: &str) -> Option<Wall> {
    let whole = match kind {
        UTC_TIME => {
            let century = if text >= "50" { "19" } else { "20" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", whole).ok()?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Wall(zoned.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_in_both_forms_and_in_nothing_else() {
        let check = |year: i32, expected: i64| {
            let mut params = rcgen::CertificateParams::new(["shop.example".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der().to_vec();
            assert_eq!(not_after(&der), Some(Wall(expected)), "{year}");
            for end in 0..60 {
                assert_eq!(not_after(&der[..end]), None, "cut off at {end}");
            }
        };
        check(2031, 1_927_843_200_000);
        check(2051, 2_558_995_200_000);
        assert_eq!(not_after(b"words, not DER, and rather long ones"), None);
        assert_eq!(time(UTC_TIME, "991231235959Z"), Some(Wall(946_684_799_000)));
        assert_eq!(time(UTC_TIME, "soon"), None);
    }
}

//! HMAC with SHA-256 (RFC 2104), fed piece by piece. Written apart from what the service signs
//! with, so that one checks the other.

use sha2::{Digest as _, Sha256};

use super::options::{HmacEncoding, HmacOptions};
use super::text::{unbase64, unhex};

const BLOCK_BYTES: usize = 64;

pub(super) struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    pub(super) fn new(key: &[u8]) -> Self {
        let mut block = [0_u8; BLOCK_BYTES];
        if key.len() > BLOCK_BYTES {
            let digest: [u8; 32] = Sha256::digest(key).into();
            block[..digest.len()].copy_from_slice(&digest);
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let padded = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.outer.chain_update(self.inner.finalize()).finalize().into()
    }
}

/// Whether the text, as the header has it, is the HMAC.
pub(super) fn is_same(options: &HmacOptions, text: &str, mac: [u8; 32]) -> bool {
    let given = match options.encoding {
        HmacEncoding::Hex => unhex(text),
        HmacEncoding::Base64 if text.len() == 44 => unbase64(text),
        HmacEncoding::Base64 => None,
    };
    given.is_some_and(|given| given == mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_of_rfc_4231() {
        let check = |key: &[u8], pieces: &[&str], expected: &str| {
            let mut hmac = Hmac::new(key);
            for piece in pieces {
                hmac.update(piece.as_bytes());
            }
            assert_eq!(unhex(expected).unwrap(), hmac.finish());
        };
        check(
            b"Jefe",
            &["what do ya want ", "for nothing?"],
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            &["Test Using Larger Than Block-Size Key - Hash Key First"],
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }
}

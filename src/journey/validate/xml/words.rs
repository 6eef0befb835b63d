//! What can be wrong with an XML document, in codes and in words. No word here shows content of
//! the file.

use super::{TOKEN_MAX, XmlFlaw};
use crate::model::route::RouteName;

impl XmlFlaw {
    pub(in crate::journey::validate) fn code(self) -> &'static str {
        match self {
            Self::NotXml(_) | Self::EndTag(_) | Self::Character(0xfffe..) => "not-xml",
            Self::SecondRoot => "several-documents",
            Self::TrailingContent => "trailing-content",
            Self::Character(_) => "control-character",
            Self::Bytes("UTF-8") => "invalid-utf8",
            Self::Bytes("UTF-16LE" | "UTF-16BE") => "invalid-utf16",
            Self::Bytes(_)
            | Self::UnknownEncoding
            | Self::OtherEncoding(_)
            | Self::EnvelopeEncoding(_) => "wrong-encoding",
            Self::TooDeep(_) => "too-deep",
            Self::TokenTooLarge => "xml-token-too-large",
            Self::Stops(_) => "truncated",
        }
    }

    pub(in crate::journey::validate) fn is_unfinished(self) -> bool {
        matches!(self, Self::Stops(_))
    }

    pub(in crate::journey::validate) fn plain(self, place: &str) -> String {
        match self {
            Self::NotXml(what) => format!("{what} at {place}"),
            Self::EndTag(line) => format!(
                "an end tag at {place} that is not that of the open element, which begins on line \
                 {line}"
            ),
            Self::SecondRoot => {
                format!("the root element is followed by another element at {place}")
            }
            Self::TrailingContent => {
                format!("the root element is followed by other content at {place}")
            }
            Self::Character(number) => {
                format!("character U+{number:04X}, which XML does not allow, at {place}")
            }
            Self::Bytes(name) => format!("bytes that are not {name} at {place}"),
            Self::UnknownEncoding => {
                format!("the XML declaration names an encoding that is not known at {place}")
            }
            Self::OtherEncoding(name) => format!(
                "the XML declaration names another encoding at {place} than {name}, in which the \
                 file begins"
            ),
            Self::EnvelopeEncoding(name) => format!(
                "the document is in {name} (so its byte order mark or its declaration is read) from \
                 {place} on, and an envelope carries it as a text in UTF-8"
            ),
            Self::TooDeep(max) => format!("elements nest more than {max} deep at {place}"),
            Self::TokenTooLarge => format!(
                "a tag, comment or CDATA section at {place} is larger than what is checked \
                 ({TOKEN_MAX} bytes), or the names of all open elements are"
            ),
            Self::Stops(0) => format!("the document stops in the middle at {place}"),
            Self::Stops(1) => {
                format!("the document stops in the middle at {place}, one element is open")
            }
            Self::Stops(open) => {
                format!("the document stops in the middle at {place}, {open} elements are open")
            }
        }
    }

    pub(in crate::journey::validate) fn remedy(self, route: &RouteName) -> String {
        match self {
            Self::Bytes("UTF-8") => {
                "Have the file written in UTF-8, or begin with a declaration of its encoding, such \
                 as <?xml version=\"1.0\" encoding=\"windows-1252\"?>."
                    .to_owned()
            }
            Self::Bytes(_) | Self::OtherEncoding(_) => {
                "Have the file written in the encoding that its declaration names, or name the one \
                 it is written in."
                    .to_owned()
            }
            Self::UnknownEncoding => {
                "Have the file written in UTF-8, or name its encoding as XML does (UTF-8, UTF-16, \
                 ISO-8859-1, windows-1252, ...)."
                    .to_owned()
            }
            Self::EnvelopeEncoding(_) => {
                "Have the file written in UTF-8, with a declaration that names no other encoding."
                    .to_owned()
            }
            Self::TooDeep(_) => {
                format!("Raise max_depth of route {route}, if the receiver can take it.")
            }
            Self::TokenTooLarge => format!(
                "Set format = 'binary' for route {route} to have its files sent unchecked, or have \
                 smaller parts written."
            ),
            Self::SecondRoot => "Have each document written to a file of its own.".to_owned(),
            Self::Stops(_) => {
                "Check that the program that writes the file comes to its end, and drop it again."
                    .to_owned()
            }
            Self::NotXml(_) | Self::EndTag(_) | Self::TrailingContent | Self::Character(_) => {
                "Mend the file or the program that writes it, and drop it again.".to_owned()
            }
        }
    }
}

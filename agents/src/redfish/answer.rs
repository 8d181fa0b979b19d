//! What the answer of a BMC means, by HTTP.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use hyper::body::Bytes;

use super::schema;
use crate::Error;
use crate::error::clean;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Tells whether the request is to be repeated elsewhere. A 303 to a POST is not: it was taken.
    pub(super) fn asks_to_repeat(&self, method: &Method) -> bool {
        match self.status {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::SEE_OTHER => method == Method::GET,
            _ => false,
        }
    }

    /// Tells what anything but a 2xx means.
    pub(super) fn judge(&self, doing: &'static str) -> Result<(), Error> {
        let status = self.status.as_u16();
        match status {
            200..=299 => Ok(()),
            401 | 403 => Err(Error::Auth { doing, status }),
            429 | 503 => Err(Error::Busy { doing, retry_after: self.retry_after() }),
            400..=499 => Err(self.refused(doing)),
            500..=599 => Err(Error::Server { doing, status }),
            _ => Err(Error::Protocol { doing, reason: format!("HTTP {status}") }),
        }
    }

    /// A refusal, in the vendor's words.
    pub(super) fn refused(&self, doing: &'static str) -> Error {
        let (code, message) = schema::error_words(&self.body);
        let status = self.status.as_u16();
        Error::Refused { doing, status, code: clean(&code, 100), message: clean(&message, 300) }
    }

    /// Retry-After in seconds. As a date it would have to be read by the BMC's clock; those are often wrong.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn judge(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Result<(), Error> {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: headers.collect(), body: Bytes::from_static(body.as_bytes()) }.judge("testing")
    }

    #[test]
    fn each_status_has_one_meaning() {
        for (status, label) in [
            (302, "BMCProtocolError"),
            (400, "BMCRefused"),
            (401, "BMCAuthFailed"),
            (403, "BMCAuthFailed"),
            (404, "BMCRefused"),
            (409, "BMCRefused"),
            (429, "BMCBusy"),
            (500, "BMCServerError"),
            (503, "BMCBusy"),
        ] {
            assert_eq!(judge(status, &[], "").expect_err("not a 2xx").label(), label, "{status}");
        }
        for status in [200, 202, 204] {
            assert_eq!(judge(status, &[], "{}"), Ok(()));
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_only() {
        let after = |value| match judge(503, &[("retry-after", value)], "") {
            Err(Error::Busy { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_refusal_carries_the_vendors_words_cleaned() {
        let body = r#"{"error":{"code":"A.1","message":"is\u0007\noff"}}"#;
        let error = judge(400, &[], body).expect_err("refused");
        assert_eq!(error.to_string(), "the BMC refused while testing (HTTP 400): A.1: is off");
    }
}

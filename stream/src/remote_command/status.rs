//! How a session ended, as the client is told on its error stream.

use serde::Serialize;

use super::Version;

/// How the session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The process ran to its end.
    Exited(i32),
    /// There was none, or it cannot be said how it ended.
    Failed(String),
}

/// Kubernetes' metav1.Status.
#[derive(Serialize)]
struct Status<'a> {
    metadata: Metadata,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
}

impl Outcome {
    /// Without a session's worth.
    pub(super) fn failed(message: String) -> Self {
        Self::Failed(format!("Internal error occurred: {message}"))
    }

    /// What is written on the error stream: since version 4 always a status, before it a text when it did not go well.
    pub(super) fn message(&self, version: Version) -> String {
        let text = match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!(
                "command terminated with non-zero exit code: {code}"
            )),
            Self::Failed(message) => Some(message.clone()),
        };
        if version < Version::V4 {
            return text.unwrap_or_default();
        }
        let exit_code = match self {
            Self::Exited(code) => code.to_string(),
            Self::Failed(_) => String::new(),
        };
        let (reason, details, code) = match self {
            Self::Exited(0) => (None, None, None),
            Self::Exited(_) => {
                let cause = Cause {
                    reason: "ExitCode",
                    message: &exit_code,
                };
                (
                    Some("NonZeroExitCode"),
                    Some(Details { causes: [cause] }),
                    None,
                )
            }
            Self::Failed(_) => (Some("InternalError"), None, Some(500)),
        };
        let status = Status {
            metadata: Metadata {},
            status: if text.is_none() { "Success" } else { "Failure" },
            message: text,
            reason,
            details,
            code,
        };
        // Strings and numbers can always be written as JSON.
        serde_json::to_string(&status).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_that_clients_read() {
        let message = |outcome: Outcome, version| outcome.message(version);
        assert_eq!(
            message(Outcome::Exited(0), Version::V4),
            r#"{"metadata":{},"status":"Success"}"#
        );
        assert_eq!(
            message(Outcome::Exited(3), Version::V5),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        assert_eq!(
            message(Outcome::failed("no \"x\"".to_owned()), Version::V4),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no \"x\"","reason":"InternalError","code":500}"#
        );
    }

    #[test]
    fn old_clients_are_told_of_failures_only() {
        for version in [Version::V1, Version::V2, Version::V3] {
            assert_eq!(Outcome::Exited(0).message(version), "");
            assert_eq!(
                Outcome::Exited(3).message(version),
                "command terminated with non-zero exit code: 3"
            );
            let failed = Outcome::failed("gone".to_owned());
            assert_eq!(failed.message(version), "Internal error occurred: gone");
        }
    }
}

//! The errors of commands, and their exit codes.

use std::process::ExitCode;

use super::text::{escape_lines, print_error};
use crate::control::AppError;

/// Why a command failed. `evoke --help` lists the exit code of each variant.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments are wrong. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The command failed. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command found a problem and has printed it already. Exit code 1.
    #[error("")]
    Reported,
    /// Standard output was closed before everything was printed, for example by `head`. Not an error. Exit code 0.
    #[error("")]
    OutputClosed,
    /// No running Evoke was found, or it does not respond. Exit code 3.
    #[error("{0}")]
    NotRunning(String),
    /// The requested object does not exist. Exit code 4.
    #[error("{0}")]
    NotFound(String),
}

impl Failure {
    /// Prints the message on standard error.
    pub fn print(&self) {
        if !matches!(self, Self::Reported | Self::OutputClosed) {
            let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
            // The message may contain untrusted text, such as a part of a response.
            print_error(&format!("{style}error{style:#}: {}\n", escape_lines(&self.to_string())));
        }
    }

    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::Failed(_) | Self::Reported => 1,
            Self::Usage(_) => 2,
            Self::NotRunning(_) => 3,
            Self::NotFound(_) => 4,
        })
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Manifest(found) => {
                print_error(&found.styled());
                Self::Failed(AppError::Manifest(found).to_string())
            }
            AppError::StoreFailed(_) => Self::Failed(error.to_string()),
            AppError::Other(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

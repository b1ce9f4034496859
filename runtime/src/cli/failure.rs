//! Why a command did not do what it was asked, and the exit code for it.

use std::process::ExitCode;

use crate::app::AppError;

/// How a command failed. Each has its exit code; the root's `--help` lists them.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// Something is wrong, and was printed already.
    #[error("")]
    Reported,
    /// No running Evoke answers.
    #[error("{0}")]
    NotRunning(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
}

impl Failure {
    /// Tells it on standard error.
    pub fn report(&self) -> ExitCode {
        if !matches!(self, Self::Reported) {
            let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
            anstream::eprintln!("{style}error{style:#}: {self}");
        }
        ExitCode::from(match self {
            Self::Failed(_) | Self::Reported => 1,
            Self::NotRunning(_) => 3,
            Self::NotFound(_) => 4,
        })
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Mistakes(found) => {
                anstream::eprint!("{}", found.styled());
                Self::Failed(AppError::Mistakes(found).to_string())
            }
            AppError::Other(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

//! The simulated kernel log: lines a program of this world could read in `/dev/kmsg`. Text where the real
//! kernel's text is known.

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Information.
    Info,
    /// Warning.
    Warn,
    /// Error.
    Err,
}

impl Level {
    /// The number in `<6>`, as `syslog(2)` shows it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warn => 4,
            Self::Err => 3,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How serious.
    pub level: Level,
    /// Text without prefix or newline.
    pub text: String,
}

/// The log of one kernel.
#[derive(Clone, Debug, Default)]
pub struct KernelLog {
    /// Lines, oldest first.
    pub lines: Vec<LogLine>,
}

impl KernelLog {
    fn push(&mut self, level: Level, text: String) {
        self.lines.push(LogLine { level, text });
    }

    /// Logs information.
    pub fn info(&mut self, text: impl Into<String>) {
        self.push(Level::Info, text.into());
    }

    /// Logs a warning.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.push(Level::Warn, text.into());
    }

    /// Logs an error.
    pub fn err(&mut self, text: impl Into<String>) {
        self.push(Level::Err, text.into());
    }

    /// Whether a line contains `text`.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.text.contains(text))
    }
}

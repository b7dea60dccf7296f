//! The address of a PostgreSQL database. It may hold a password, so it is never shown as it is.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE`. Shown
/// without password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    options: PgConnectOptions,
    text: String,
}

impl DatabaseUrl {
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("a store's URL begins with postgres://");
        }
        let options = text.parse::<PgConnectOptions>().map_err(|_| {
            "this is no URL of a PostgreSQL database: postgres://USER@HOST:PORT/DATABASE; \
             letters like @ and / in a password are written as %40 and %2F"
        })?;
        let options = options.application_name("bastio-backend");
        Ok(Self { options, text: text.to_owned() })
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for DatabaseUrl {}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        write!(f, "postgres://{}@{host}:{port}", self.options.get_username())?;
        self.options.get_database().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let text = "postgres://bastio:s3cret%40@db.example.org:5433/fleet?sslmode=verify-full";
        let url: DatabaseUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), "postgres://bastio@db.example.org:5433/fleet");
        assert!(!format!("{url:?}").contains("s3cret"));
        for wrong in ["", "mysql://x", "/var/lib/bastio.db", "postgres://s3cret:x:y/ z"] {
            let error = wrong.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}

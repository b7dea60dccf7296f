//! Which backend and with which token: flags before environment before the stored login.
//!
//! Must not know HTTP. The stored token goes to the backend that it was stored for, and to no
//! other.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use ureq::http::Uri;

use crate::login_file::{Login, LoginFile, LoginFileError};
use crate::token::{self, Token, TokenError};

/// The base URL of a backend, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl(String);

/// Why a text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not an URL, or one without http or https.
    #[error("not a URL of a backend; write it like http://backend.example.org:2358")]
    Malformed,
    /// A password would land in logs and process lists.
    #[error("an URL without user and password is needed; the token is asked for")]
    Credentials,
}

/// What the command line says about the backend.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--url`
    pub url: Option<BackendUrl>,
    /// `--token-file`
    pub token_file: Option<PathBuf>,
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `BASTIO_URL`
    pub url: Option<OsString>,
    /// `BASTIO_TOKEN`
    token: Secret,
    /// The folder for configuration files.
    pub config_home: Option<PathBuf>,
}

/// A variable whose value Debug output must not show.
#[derive(Clone, Default)]
struct Secret(Option<OsString>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// A backend with the token that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where the backend is.
    pub url: BackendUrl,
    /// What opens it.
    pub token: Token,
}

/// Why there is no usable backend or token.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Nothing says where the backend is.
    #[error("not logged in to any backend")]
    NotLoggedIn,
    /// The backend is known, no token for it is.
    #[error("no token for {0}")]
    NoToken(BackendUrl),
    /// The stored token belongs to another backend.
    #[error("the stored login is for {stored}, not for {wanted}")]
    OtherBackend {
        /// The backend it is for.
        stored: BackendUrl,
        /// The backend that was asked for.
        wanted: BackendUrl,
    },
    /// `BASTIO_URL` is none.
    #[error("BASTIO_URL: {0}")]
    BadUrl(UrlError),
    /// `BASTIO_TOKEN` is none.
    #[error("BASTIO_TOKEN: {0}")]
    BadToken(TokenError),
    /// The file of `--token-file` cannot be read.
    #[error("cannot read the token file {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of `--token-file` holds no token.
    #[error("token file {}: {source}", path.display())]
    TokenFileContent {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TokenError,
    },
    /// Neither `XDG_CONFIG_HOME` nor `HOME` is set.
    #[error("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for a login")]
    NoConfigHome,
    /// The stored login is not usable.
    #[error(transparent)]
    LoginFile(#[from] LoginFileError),
}

impl SettingsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotLoggedIn => {
                Some("run `bastio login URL`, or set BASTIO_URL and BASTIO_TOKEN".to_owned())
            }
            Self::NoToken(url) | Self::OtherBackend { wanted: url, .. } => {
                Some(format!("run `bastio login {url}`, or give --token-file FILE or BASTIO_TOKEN"))
            }
            Self::NoConfigHome => Some("give --url and --token-file".to_owned()),
            Self::LoginFile(error) => error.hint(),
            Self::BadUrl(_)
            | Self::BadToken(_)
            | Self::TokenFile { .. }
            | Self::TokenFileContent { .. } => None,
        }
    }
}

impl BackendUrl {
    /// The URL as text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host alone, without the brackets of an IPv6 address.
    pub fn host(&self) -> String {
        let uri = self.0.parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        host.trim_matches(['[', ']']).to_owned()
    }

    /// Whether a token sent there can be read on the way: plain http to another machine.
    pub fn is_readable_on_the_way(&self) -> bool {
        let host = self.0.strip_prefix("http://").and_then(|rest| rest.parse::<Uri>().ok());
        host.is_some_and(|uri| {
            let host = uri.host().unwrap_or_default();
            !(host == "localhost" || host == "[::1]" || host.starts_with("127."))
        })
    }
}

impl FromStr for BackendUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        let plain = scheme.is_some() && !text.contains(['?', '#']) && !authority.host().is_empty();
        if plain { Ok(Self(text.to_owned())) } else { Err(UrlError::Malformed) }
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Environment {
    /// That of this process. Variables that are set to nothing count as not set, and a relative
    /// `XDG_CONFIG_HOME` too (XDG Base Directory Specification 0.8).
    pub fn of_process() -> Self {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let absolute = |path: &PathBuf| path.is_absolute();
        let home = || var("HOME").map(|home| Path::new(&home).join(".config"));
        Self {
            url: var("BASTIO_URL"),
            token: Secret(var("BASTIO_TOKEN")),
            config_home: var("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .filter(absolute)
                .or_else(|| home().filter(absolute)),
        }
    }

    /// Where the login is stored.
    ///
    /// # Errors
    /// [`SettingsError::NoConfigHome`].
    pub fn login_file(&self) -> Result<LoginFile, SettingsError> {
        let home = self.config_home.as_deref().ok_or(SettingsError::NoConfigHome)?;
        Ok(LoginFile::below(home))
    }

    fn url(&self) -> Result<Option<BackendUrl>, SettingsError> {
        let Some(url) = &self.url else { return Ok(None) };
        let text = url.to_str().ok_or(SettingsError::BadUrl(UrlError::Malformed))?;
        text.parse().map(Some).map_err(SettingsError::BadUrl)
    }

    fn token(&self) -> Result<Option<Token>, SettingsError> {
        let Some(token) = &self.token.0 else { return Ok(None) };
        let text = token.to_str().ok_or(SettingsError::BadToken(TokenError::Character))?;
        Token::parse(text).map(Some).map_err(SettingsError::BadToken)
    }

    /// The stored login; none where there is no place for one.
    fn login(&self) -> Result<Option<Login>, SettingsError> {
        match self.login_file() {
            Ok(file) => Ok(file.load()?),
            Err(SettingsError::NoConfigHome) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Finds backend and token: flags, then environment, then the stored login, which is read only
/// when something is still missing.
///
/// # Errors
/// [`SettingsError`] when either is missing or malformed.
pub fn resolve(flags: &Flags, environment: &Environment) -> Result<Access, SettingsError> {
    let url = match &flags.url {
        Some(url) => Some(url.clone()),
        None => environment.url()?,
    };
    let token = match &flags.token_file {
        Some(path) => Some(read_token_file(path)?),
        None => environment.token()?,
    };
    match (url, token) {
        (Some(url), Some(token)) => Ok(Access { url, token }),
        (url, token) => complete(url, token, environment.login()?),
    }
}

/// Fills in from the stored login what is missing.
fn complete(
    url: Option<BackendUrl>,
    token: Option<Token>,
    login: Option<Login>,
) -> Result<Access, SettingsError> {
    match (url, token, login) {
        (Some(url), Some(token), _) => Ok(Access { url, token }),
        (Some(url), None, None) => Err(SettingsError::NoToken(url)),
        (Some(wanted), None, Some(login)) if login.url != wanted => {
            Err(SettingsError::OtherBackend { stored: login.url, wanted })
        }
        (_, None, Some(login)) => Ok(Access { url: login.url, token: login.token }),
        (None, Some(token), Some(login)) => Ok(Access { url: login.url, token }),
        (None, _, None) => Err(SettingsError::NotLoggedIn),
    }
}

/// Reads the file of `--token-file`.
///
/// # Errors
/// [`SettingsError::TokenFile`], [`SettingsError::TokenFileContent`].
pub fn read_token_file(path: &Path) -> Result<Token, SettingsError> {
    let limit = u64::try_from(2 * token::MAX_LEN).unwrap_or(u64::MAX);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|source| SettingsError::TokenFile { path: path.to_owned(), source })?;
    Token::parse(&text)
        .map_err(|source| SettingsError::TokenFileContent { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BackendUrl {
        text.parse().expect(text)
    }

    fn token(text: &str) -> Token {
        Token::parse(text).expect(text)
    }

    #[test]
    fn base_urls_are_normalised_or_refused() {
        for (text, expected) in [
            ("http://b:2358", Ok("http://b:2358")),
            ("https://b.example.org/", Ok("https://b.example.org")),
            ("https://b/bastio/", Ok("https://b/bastio")),
            ("http://[::1]:2358", Ok("http://[::1]:2358")),
            ("", Err(UrlError::Malformed)),
            ("backend:2358", Err(UrlError::Malformed)),
            ("/etc/passwd", Err(UrlError::Malformed)),
            ("ftp://b", Err(UrlError::Malformed)),
            ("http://", Err(UrlError::Malformed)),
            ("http://b/?x=1", Err(UrlError::Malformed)),
            ("http://b/#x", Err(UrlError::Malformed)),
            ("http://me:secret@b", Err(UrlError::Credentials)),
        ] {
            let parsed = text.parse::<BackendUrl>();
            assert_eq!(parsed.as_ref().map(BackendUrl::as_str), expected.as_ref().map(|u| *u));
        }
    }

    #[test]
    fn plain_http_is_readable_unless_it_stays_on_this_machine() {
        for (text, expected) in [
            ("http://b:2358", true),
            ("http://10.0.0.1", true),
            ("https://b", false),
            ("http://127.0.0.1:2358", false),
            ("http://localhost:1", false),
            ("http://[::1]:1", false),
        ] {
            assert_eq!(url(text).is_readable_on_the_way(), expected, "{text}");
        }
    }

    #[test]
    fn the_stored_token_goes_to_its_own_backend_only() {
        let login = || Some(Login { url: url("http://a"), token: token("stored") });
        let given = || Some(token("given"));
        let reach = |u: &str, t: &str| Access { url: url(u), token: token(t) };
        let at = |u: &str| Some(url(u));
        for (url, token, login, expected) in [
            (None, None, login(), Some(reach("http://a", "stored"))),
            (at("http://a"), None, login(), Some(reach("http://a", "stored"))),
            (at("http://b"), None, login(), None),
            (at("http://b"), given(), login(), Some(reach("http://b", "given"))),
            (None, given(), login(), Some(reach("http://a", "given"))),
            (None, given(), None, None),
            (None, None, None, None),
            (at("http://b"), None, None, None),
        ] {
            assert_eq!(complete(url, token, login).ok(), expected);
        }
    }
}

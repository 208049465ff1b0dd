//! Who the bus is to the server, and how a secret is kept.
//!
//! There is one method or none. The keys of the configuration are flat (`user`, `password-file`, …), so that a file can give
//! the user and the environment the password; [`AuthKeys`] collects them layer by layer and makes one [`Auth`] of them. A
//! layer that names another method than a weaker layer replaces it as a whole: a token in the environment is not an addition
//! to the credentials in the file, it is meant instead of them. Two methods in the same layer are a mistake.
//!
//! Files are only named here. They are read at each connect, so that a credential can be renewed under a running bus.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::ConfigError;

/// How the bus proves who it is. Default: not at all, or by the credentials in the URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Auth {
    /// Nothing but what stands in the URL.
    #[default]
    None,
    /// A credentials file: JWT and seed in one, as `nsc` writes it (`creds`).
    Creds(PathBuf),
    /// A file with an NKey seed (`nkey`, alias `seed`).
    Nkey(PathBuf),
    /// A user JWT, and the seed that signs for it, in two files (`jwt` and `nkey`).
    Jwt {
        /// The file with the JWT.
        jwt: PathBuf,
        /// The file with the seed.
        seed: PathBuf,
    },
    /// A user and a password (`user`, and `password` or `password-file`).
    User {
        /// The user.
        user: String,
        /// The password.
        password: SecretSource,
    },
    /// A token (`token` or `token-file`).
    Token(SecretSource),
}

/// A secret, or the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// The secret itself.
    Value(Secret),
    /// A file whose content, without the line end, is the secret.
    File(PathBuf),
}

/// A text that is never shown: `Debug` prints `***`, and there is neither `Display` nor `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The `auth` keys that have been given so far.
#[derive(Default)]
pub(super) struct AuthKeys(BTreeMap<AuthKey, Given>);

/// One key of the table `auth`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AuthKey {
    Creds,
    Nkey,
    Jwt,
    User,
    Password,
    PasswordFile,
    Token,
    TokenFile,
}

/// The value of a key, and the key as its layer spells it: `auth.creds`, `NATS_CREDS`.
struct Given {
    value: String,
    spelling: String,
}

#[derive(PartialEq, Eq)]
enum Method {
    Creds,
    Nkey,
    User,
    Token,
}

impl AuthKey {
    fn method(self) -> Method {
        match self {
            Self::Creds => Method::Creds,
            Self::Nkey | Self::Jwt => Method::Nkey,
            Self::User | Self::Password | Self::PasswordFile => Method::User,
            Self::Token | Self::TokenFile => Method::Token,
        }
    }

    /// The other way to give the same secret.
    fn rival(self) -> Option<Self> {
        match self {
            Self::Password => Some(Self::PasswordFile),
            Self::PasswordFile => Some(Self::Password),
            Self::Token => Some(Self::TokenFile),
            Self::TokenFile => Some(Self::Token),
            Self::Creds | Self::Nkey | Self::Jwt | Self::User => None,
        }
    }

    /// Whether both keys can be given together.
    fn agrees_with(self, other: Self) -> bool {
        self.method() == other.method() && self.rival() != Some(other)
    }
}

impl AuthKeys {
    /// Adds a key to this layer.
    pub(super) fn insert(&mut self, key: AuthKey, value: String, spelling: String) {
        self.0.insert(key, Given { value, spelling });
    }

    /// Lays these keys over those of the weaker layers: what disagrees with them goes.
    pub(super) fn over(mut self, weaker: Self) -> Result<Self, ConfigError> {
        for (key, given) in &self.0 {
            if let Some((_, other)) = self.0.iter().find(|(other, _)| !other.agrees_with(*key)) {
                return Err(ConfigError::conflict(&given.spelling, &other.spelling));
            }
        }
        for (key, given) in weaker.0 {
            if self.0.keys().all(|stronger| stronger.agrees_with(key)) {
                self.0.entry(key).or_insert(given);
            }
        }
        Ok(self)
    }

    /// The method that the keys stand for.
    pub(super) fn finish(mut self) -> Result<Auth, ConfigError> {
        let incomplete = self.0.values().next().map(|given| given.spelling.clone());
        let mut take = |key| self.0.remove(&key).map(|given| given.value);
        let password = take(AuthKey::Password).map(|text| SecretSource::Value(Secret(text)));
        let password =
            password.or_else(|| take(AuthKey::PasswordFile).map(|path| SecretSource::File(path.into())));
        let token = take(AuthKey::Token).map(|text| SecretSource::Value(Secret(text)));
        let token = token.or_else(|| take(AuthKey::TokenFile).map(|path| SecretSource::File(path.into())));

        if let Some(token) = token {
            return Ok(Auth::Token(token));
        }
        if let Some(creds) = take(AuthKey::Creds) {
            return Ok(Auth::Creds(creds.into()));
        }
        let without = |missing| ConfigError::incomplete(&incomplete.unwrap_or_default(), missing);
        match (take(AuthKey::User), password) {
            (Some(user), Some(password)) => return Ok(Auth::User { user, password }),
            (Some(_), None) => return Err(without("auth.password or auth.password-file")),
            (None, Some(_)) => return Err(without("auth.user")),
            (None, None) => {}
        }
        match (take(AuthKey::Nkey), take(AuthKey::Jwt)) {
            (Some(seed), Some(jwt)) => Ok(Auth::Jwt { jwt: jwt.into(), seed: seed.into() }),
            (Some(seed), None) => Ok(Auth::Nkey(seed.into())),
            (None, Some(_)) => Err(without("auth.nkey")),
            (None, None) => Ok(Auth::None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Lays layers over each other, weakest first, with each key as its own value.
    fn auth(layers: &[&[AuthKey]]) -> Result<Auth, ConfigError> {
        let mut all = AuthKeys::default();
        for (index, keys) in layers.iter().enumerate() {
            let mut layer = AuthKeys::default();
            for &key in *keys {
                layer.insert(key, format!("{index}"), format!("key {}", key as u8));
            }
            all = layer.over(all)?;
        }
        all.finish()
    }

    #[test]
    fn keys_become_one_method() {
        use AuthKey::*;
        let value = |text: &str| SecretSource::Value(Secret::new(text));
        let user = |password| Auth::User { user: "0".to_owned(), password };
        for (layers, expected) in [
            (&[] as &[&[AuthKey]], Auth::None),
            (&[&[Creds]], Auth::Creds("0".into())),
            (&[&[Nkey]], Auth::Nkey("0".into())),
            (&[&[Nkey, Jwt]], Auth::Jwt { jwt: "0".into(), seed: "0".into() }),
            (&[&[User, Password]], user(value("0"))),
            (&[&[User, PasswordFile]], user(SecretSource::File("0".into()))),
            (&[&[Token]], Auth::Token(value("0"))),
            (&[&[TokenFile]], Auth::Token(SecretSource::File("0".into()))),
            // A stronger layer adds to the same method, displaces its rival, and replaces another method.
            (&[&[User], &[Password]], user(value("1"))),
            (&[&[User, PasswordFile], &[Password]], user(value("1"))),
            (&[&[User, Password], &[PasswordFile]], user(SecretSource::File("1".into()))),
            (&[&[User, Password], &[], &[Token]], Auth::Token(value("2"))),
            (&[&[Creds], &[Creds]], Auth::Creds("1".into())),
        ] {
            assert_eq!(auth(layers).unwrap(), expected);
        }
    }

    #[test]
    fn a_method_that_is_incomplete_says_what_is_missing() {
        use AuthKey::*;
        for (keys, missing) in
            [(User, "auth.password or auth.password-file"), (PasswordFile, "auth.user"), (Jwt, "auth.nkey")]
        {
            let refusal = auth(&[&[keys]]).unwrap_err().to_string();
            assert_eq!(refusal, format!("key {} needs {missing} beside it", keys as u8));
        }
    }

    #[test]
    fn two_methods_in_one_layer_are_both_named() {
        use AuthKey::*;
        for keys in
            [[Creds, Token], [User, Token], [Creds, Nkey], [Password, PasswordFile], [Token, TokenFile]]
        {
            let refusal = auth(&[&keys]).unwrap_err().to_string();
            let both = keys.map(|key| format!("key {}", key as u8));
            assert!(both.iter().all(|key| refusal.contains(key)), "{refusal}");
        }
        assert!(auth(&[&[User, Password, PasswordFile]]).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let auth =
            Auth::User { user: "me".to_owned(), password: SecretSource::Value(Secret::new("hunter2")) };
        assert_eq!(format!("{auth:?}"), "User { user: \"me\", password: Value(***) }");
    }
}

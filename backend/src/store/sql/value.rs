//! Values of statements, of three kinds, and what they are made of. This file must not know any statement.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// A value of a statement. Its kind is known also when it is absent, as PostgreSQL wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'q> {
    /// A number, a time, an id.
    Integer(Option<i64>),
    /// Text, also JSON.
    Text(Option<Cow<'q, str>>),
    /// Yes or no.
    Boolean(Option<bool>),
}

/// Yes or no in a packed row: SQLite says 1 or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Word(bool),
            Number(u8),
        }
        Ok(Self(match Either::deserialize(from)? {
            Either::Word(flag) => flag,
            Either::Number(number) => number != 0,
        }))
    }
}

macro_rules! values {
    ($($kind:ident($type:ty): |$value:ident| $inner:expr;)*) => {$(
        impl<'q> From<$type> for Value<'q> {
            fn from($value: $type) -> Self {
                Self::$kind(Some($inner))
            }
        }
        impl<'q> From<Option<$type>> for Value<'q> {
            fn from(value: Option<$type>) -> Self {
                Self::$kind(value.map(|$value| $inner))
            }
        }
    )*};
}
values! {
    Integer(i64): |number| number;
    Integer(crate::store::ServerId): |id| id.0;
    Integer(crate::store::UserId): |id| id.0;
    Integer(crate::store::actions::ActionId): |id| id.0;
    Integer(crate::store::groups::GroupId): |id| id.0;
    Integer(crate::store::requests::RequestId): |id| id.0;
    Text(&'q str): |text| Cow::Borrowed(text);
    Text(&'q String): |text| Cow::Borrowed(text.as_str());
    Text(String): |text| Cow::Owned(text);
    Boolean(bool): |flag| flag;
}

impl<'q> From<&'q Option<String>> for Value<'q> {
    fn from(value: &'q Option<String>) -> Self {
        Self::Text(value.as_deref().map(Cow::Borrowed))
    }
}

/// PostgreSQL has no text with the character 0 in it.
pub(super) fn without_nul(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { text }
}

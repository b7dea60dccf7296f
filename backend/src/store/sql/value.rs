//! Values of statements, of three kinds, and what they are made of. This file must not know any statement.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
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
        from.deserialize_any(FlagVisitor)
    }
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, 1 or 0")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Flag, E> {
        Ok(Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Flag, E> {
        Ok(Flag(number != 0))
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

/// Copies of texts that a statement was lent: rows that are written together mostly say much the same.
#[derive(Default)]
pub(super) struct Lent {
    /// The last few, in a ring.
    last: Vec<Arc<str>>,
    next: usize,
}

impl Lent {
    /// As many as a row has texts that all rows share.
    const LAST: usize = 8;

    /// A copy of `text`; of one that came before that again, if it is not long ago.
    pub(super) fn copy(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.last.iter().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let copy: Arc<str> = text.into();
        match self.last.get_mut(self.next) {
            Some(place) => *place = Arc::clone(&copy),
            None => self.last.push(Arc::clone(&copy)),
        }
        self.next = (self.next + 1) % Self::LAST;
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_come_again_soon_share_a_copy_and_are_what_was_lent() {
        let mut lent = Lent::default();
        let first = lent.copy("done");
        for number in 1..Lent::LAST {
            assert_eq!(&*lent.copy(&number.to_string()), number.to_string());
        }
        assert!(Arc::ptr_eq(&first, &lent.copy("done")));
        assert_eq!(&*lent.copy("one more"), "one more");
        let anew = lent.copy("done");
        assert_eq!(anew, first);
        assert!(!Arc::ptr_eq(&first, &anew), "only the last few are kept");
    }

    #[test]
    fn a_flag_is_what_either_engine_says() {
        let read = |json| serde_json::from_str::<Flag>(json).map(|flag| flag.0).ok();
        let flags = ["true", "false", "1", "0", "null", "\"1\"", "-1", "[]"].map(read);
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(flags, [yes, no, yes, no, None, None, None, None]);
    }
}

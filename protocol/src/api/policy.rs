//! The whole model, or a part of it, as a file: what `bastio apply` sends and `bastio export` writes.
//! Names are in kebab case here, as people write them.
//!
//! A section that is absent says nothing about its things. Must not know how files are read, nor
//! what leads from one model to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{DriftAnswer, Holder, Labels, NewGrant, PolicyName, Terms, Time, UserGroup, UserState};
use crate::{
    AccountSpec, KeyGrant, KeyOptions, KeyPolicy, PublicKey, ServerName, SudoCommand, Target,
    Username,
};

/// A model to be made so, or as it is. `GET /policy`, `POST /policy?prune=true`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// The version of this format.
    pub version: PolicyVersion,
    /// Rules that grants give.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "section")]
    pub sudo_policies: Option<BTreeMap<PolicyName, SudoRule>>,
    /// People.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "section")]
    pub users: Option<BTreeMap<Username, PolicyUser>>,
    /// Groups of people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "section")]
    pub groups: Option<BTreeMap<UserGroup, PolicyGroup>>,
    /// Labels of servers that are enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "section")]
    pub servers: Option<BTreeMap<ServerName, PolicyServer>>,
    /// What is done about drift, by servers.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "section")]
    pub drift: Option<BTreeMap<Target, DriftAnswer>>,
    /// Who may log in where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<PolicyGrant>>,
}

/// The one version of the format that there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PolicyVersion;

impl TryFrom<u32> for PolicyVersion {
    type Error = &'static str;

    fn try_from(version: u32) -> Result<Self, Self::Error> {
        if version == 1 { Ok(Self) } else { Err("the version of this format is 1") }
    }
}

impl From<PolicyVersion> for u32 {
    fn from(_: PolicyVersion) -> Self {
        1
    }
}

/// A sudo policy; its name is the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SudoRule {
    /// Absolute commands with their arguments as sudoers(5) has them; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<SudoCommand>,
    /// As whom; empty means everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_as: Vec<Username>,
    /// Whether the account's own password is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub password: bool,
}

/// A person; the name is the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyUser {
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub full_name: String,
    /// Mail address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mail: String,
    /// Whether the person may log in.
    #[serde(default, skip_serializing_if = "is_active")]
    pub state: UserState,
    /// What the accounts of the person's own name must be.
    #[serde(default, rename = "account", skip_serializing_if = "AccountSpec::is_empty")]
    pub spec: AccountSpec,
    /// The keys that log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PolicyKey>,
}

/// A group of people; the name is the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyGroup {
    /// People.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<Username>,
    /// Groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<UserGroup>,
}

/// A server; the name is the key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyServer {
    /// Those that operators set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "map")]
    pub labels: Labels,
}

/// A key of a person: its line, or `key` with `options` and `until`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyKey(pub KeyGrant);

/// A grant: `user` or `group`, and the rest in one level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GrantFields", into = "GrantFields")]
pub struct PolicyGrant(pub NewGrant);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KeyFields {
    key: String,
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    options: KeyOptions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GrantFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Username>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<UserGroup>,
    on: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<Username>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sudo: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sudo_policy: Option<PolicyName>,
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    key_options: KeyOptions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    take_over: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl TryFrom<GrantFields> for PolicyGrant {
    type Error = &'static str;

    fn try_from(fields: GrantFields) -> Result<Self, Self::Error> {
        let holder = match (fields.user, fields.group) {
            (Some(user), None) => Holder::User(user),
            (None, Some(group)) => Holder::Group(group),
            _ => return Err("a grant has either a user or a group"),
        };
        let terms = Terms {
            from: fields.from.map(|Time(at)| at),
            until: fields.until.map(|Time(at)| at),
            sudo_policy: fields.sudo_policy,
            key_options: fields.key_options,
            take_over: fields.take_over,
        };
        let GrantFields { on, login, sudo, reason, .. } = fields;
        Ok(Self(NewGrant { holder, on, login, sudo, terms, reason }))
    }
}

impl From<PolicyGrant> for GrantFields {
    fn from(PolicyGrant(grant): PolicyGrant) -> Self {
        let Terms { from, until, sudo_policy, key_options, take_over } = grant.terms;
        let (user, group) = match grant.holder {
            Holder::User(user) => (Some(user), None),
            Holder::Group(group) => (None, Some(group)),
        };
        let NewGrant { on, login, sudo, reason, .. } = grant;
        let (from, until) = (from.map(Time), until.map(Time));
        Self {
            user,
            group,
            on,
            login,
            sudo,
            sudo_policy,
            key_options,
            from,
            until,
            take_over,
            reason,
        }
    }
}

impl Serialize for PolicyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let KeyGrant { public_key, options, until } = &self.0;
        let key = public_key.to_string();
        if options.is_empty() && until.is_none() {
            return serializer.serialize_str(&key);
        }
        KeyFields { key, options: options.clone(), until: until.map(Time) }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PolicyKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PolicyKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a public key line, or `key` with `options` and `until`")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<PolicyKey, E> {
                Ok(PolicyKey(KeyGrant::plain(public_key(line)?)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PolicyKey, A::Error> {
                let fields = KeyFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let KeyFields { key, options, until } = fields;
                let until = until.map(|Time(at)| at);
                Ok(PolicyKey(KeyGrant { public_key: public_key(&key)?, options, until }))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn public_key<E: de::Error>(line: &str) -> Result<PublicKey, E> {
    PublicKey::parse(line, &KeyPolicy::default()).map_err(E::custom)
}

fn is_active(state: &UserState) -> bool {
    *state == UserState::Active
}

/// A map in which every name stands once: the second would silently take the place of the first.
struct Once<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> de::Visitor<'de> for Once<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names, each with what it stands for")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = pairs.next_key::<K>()? {
            if map.contains_key(&key) {
                return Err(de::Error::custom(format!("{key} is there twice")));
            }
            let value = pairs.next_value()?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Once(PhantomData))
}

fn section<'de, D, K, V>(deserializer: D) -> Result<Option<BTreeMap<K, V>>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    struct Section<K, V>(Once<K, V>);
    impl<'de, K, V> de::Visitor<'de> for Section<K, V>
    where
        K: Deserialize<'de> + Ord + fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = Option<BTreeMap<K, V>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.expecting(f)
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            inner.deserialize_map(self.0).map(Some)
        }
    }
    deserializer.deserialize_option(Section(Once(PhantomData)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEgJ0ePcM0yDbCVGXSpYzMSBsOtRCZXNWBvsGaPRc7lr";

    fn read(text: &str) -> Result<Policy, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_written_as_it_is_read() {
        let text = format!(
            "{{\"version\":1,\
             \"sudo-policies\":{{\"dba\":{{\"commands\":[\"/usr/bin/psql\"],\"run-as\":[\"postgres\"]}}}},\
             \"users\":{{\"alice\":{{\"full-name\":\"Alice\",\"state\":\"locked\",\"account\":{{\"uid\":5001}},\
             \"keys\":[\"{KEY} a\",{{\"key\":\"{KEY}\",\"options\":\"restrict\",\
             \"until\":\"2026-12-01T18:00:00Z\"}}]}},\"bob\":{{}}}},\
             \"groups\":{{\"all\":{{\"groups\":[\"ops\"]}},\"ops\":{{\"users\":[\"alice\"]}}}},\
             \"servers\":{{\"web-1\":{{\"labels\":{{\"role\":\"web\"}}}}}},\
             \"drift\":{{\"*\":\"leave\",\"env=prod\":\"heal\"}},\
             \"grants\":[{{\"user\":\"alice\",\"on\":\"*\",\"sudo\":true,\"reason\":\"on call\"}},\
             {{\"group\":\"ops\",\"on\":\"role=web\",\"login\":\"deploy\",\"sudo-policy\":\"dba\",\
             \"key-options\":\"restrict\",\"from\":\"2026-11-30T00:00:00Z\",\
             \"until\":\"2026-12-01T00:00:00Z\",\"take-over\":true}}]}}"
        );
        let policy = read(&text).expect("a policy");
        assert_eq!(serde_json::to_string(&policy).expect("JSON"), text);
        assert_eq!(read(r#"{"version":1,"users":null}"#), Ok(Policy::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("{}", "missing field `version`"),
            (r#"{"version":2}"#, "the version of this format is 1"),
            (r#"{"version":1,"people":{}}"#, "unknown field `people`"),
            (r#"{"version":1,"users":{"alice":{"age":7}}}"#, "unknown field `age`"),
            (r#"{"version":1,"users":{"alice":{},"alice":{}}}"#, "alice is there twice"),
            (r#"{"version":1,"servers":{"a":{"labels":{"x":"1","x":"2"}}}}"#, "x is there twice"),
            (r#"{"version":1,"drift":{"env=prod":"fix"}}"#, "unknown variant `fix`"),
            (r#"{"version":1,"drift":{"a=1,b=2":"heal","b=2,a=1":"show"}}"#, "is there twice"),
            (r#"{"version":1,"drift":{"":"heal"}}"#, "no server named"),
            (r#"{"version":1,"grants":[{"on":"*"}]}"#, "either a user or a group"),
            (
                r#"{"version":1,"grants":[{"on":"*","user":"a","group":"b"}]}"#,
                "either a user or a group",
            ),
            (r#"{"version":1,"grants":[{"on":"*","user":"a","when":1}]}"#, "unknown field `when`"),
            (r#"{"version":1,"users":{"alice":{"keys":["ssh-rsa"]}}}"#, "not a public key line"),
            (r#"{"version":1,"users":{"alice":{"keys":[{"key":"x","age":1}]}}}"#, "unknown field"),
            (r#"{"version":1,"users":{"alice":{"keys":[7]}}}"#, "a public key line, or"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

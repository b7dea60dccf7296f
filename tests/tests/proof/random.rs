//! Random sequences of actions, mixed with what administrators do by hand, on a real server against a model: accounts,
//! groups, sudo rules and key lines that are not bastio's are the same at the end, byte for byte, and those that are
//! bastio's are what the model says after every step.

use bastio_protocol::{
    Action, KeyGrant, KeyOptions, KeyPolicy, PublicKey, Removal, Sudo, WantedAccount,
};
use bastio_tests::{Pipe, Running, require_root};
use serde_json::Value;

use crate::rig::{Rig, body, succeeded};
use crate::tally::{self, Tally};

mod by_hand;
mod model;

use by_hand::Administrator;
use model::Model;

/// Sequences in full.
const PROMISED: usize = 500;
/// Steps in a sequence.
const STEPS: usize = 30;
/// Accounts that actions are about.
const USERS: [&str; 4] = ["ann", "bob", "cleo", "admin"];
/// Of these, the one that bastio did not make and must refuse to touch.
const FOREIGN: &str = "admin";
/// Keys that come and go.
const KEYS: usize = 4;

#[test]
fn what_is_foreign_is_the_same_after_any_sequence() {
    require_root!();
    let (sequences, seed) = (tally::rounds(20, PROMISED), tally::seed());
    let rig = Rig::new();
    rig.host.exec(&["useradd", "-m", "-U", FOREIGN]).unwrap();
    let mut session = Session::start(&rig);
    let mut tally = Tally::default();
    for number in 0..sequences {
        let chance = Chance::new(seed.wrapping_add(number as u64));
        eprintln!("sequence {number}: BASTIO_SEED={}", seed.wrapping_add(number as u64));
        Sequence::new(&rig, &mut session, chance).run(&mut tally);
    }
    eprintln!("{tally}");
    let what = format!("sequences of {STEPS} steps; {} kinds of steps and answers", tally.kinds());
    tally::tell("random sequences", sequences, PROMISED, &what);
    assert!(tally.kinds() > 15, "{tally}");
}

/// Random numbers that can be had again.
pub struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub fn one_of<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())]
    }
}

/// A processor that runs through all sequences.
struct Session {
    pipe: Pipe,
    _processor: Running,
    asked: u64,
}

impl Session {
    fn start(rig: &Rig) -> Self {
        let (mut pipe, theirs) = Pipe::new().unwrap();
        let command = rig.host.command("/usr/bin/bastio-agent").arg("processor").stdin(theirs);
        let processor = command.log_to("/var/log/processor.log").spawn().unwrap();
        while pipe.hear().unwrap().expect("a first word")["type"] != "ready" {}
        pipe.connected().unwrap();
        Self { pipe, _processor: processor, asked: 0 }
    }

    fn ask(&mut self, user: &str, action: &Action) -> Value {
        self.asked += 1;
        self.pipe.say(&body(self.asked, user, action)).unwrap();
        // What is done by hand is none of bastio's business, and what bastio does is as wanted: no drift is ever told.
        let answer = self.pipe.hear().unwrap().expect("an answer");
        assert_eq!(answer["type"], "feedback", "{answer}");
        self.pipe.delivered(1).unwrap();
        answer
    }
}

struct Sequence<'a> {
    rig: &'a Rig,
    session: &'a mut Session,
    chance: Chance,
    model: Model,
    administrator: Administrator,
}

impl<'a> Sequence<'a> {
    fn new(rig: &'a Rig, session: &'a mut Session, chance: Chance) -> Self {
        let administrator = Administrator::new(&rig.host);
        Self { rig, session, chance, model: Model::default(), administrator }
    }

    fn run(mut self, tally: &mut Tally) {
        for _ in 0..STEPS {
            if self.chance.below(3) == 0 {
                tally.count(self.administrator.act(
                    &self.rig.host,
                    &mut self.model,
                    &mut self.chance,
                ));
            } else {
                tally.count(self.order());
            }
            self.administrator.check(&self.rig.host);
            self.model.check(&self.rig.host);
        }
        for user in USERS.iter().filter(|user| **user != FOREIGN) {
            let action = Action::RemoveUser { removal: Some(Removal::Delete) };
            let answer = self.session.ask(user, &action);
            assert!(succeeded(&answer), "{answer}");
        }
        self.administrator.check(&self.rig.host);
        Model::default().check(&self.rig.host);
    }

    /// One action, its answer held against the model.
    fn order(&mut self) -> String {
        let user = self.chance.one_of(&USERS);
        let number = self.chance.below(KEYS);
        let sudo = self.chance.below(2) == 0;
        let action = match self.chance.below(18) {
            16.. => Action::SetUser { wanted: Box::new(self.whole(sudo)) },
            0..=4 => Action::AddUser { sudo },
            5 | 6 => Action::UpdateUser { sudo },
            7..=11 => Action::AddKey { public_key: key(number) },
            12..=14 => Action::RemoveKey { public_key: key(number) },
            _ => Action::RemoveUser { removal: Some(Removal::Delete) },
        };
        let answer = self.session.ask(user, &action);
        let expected = self.model.apply(user, &action);
        assert_eq!(succeeded(&answer), expected, "{user} {action:?}: {answer}");
        let name = format!("{action:?}");
        let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
        format!("{name}: {}", answer["status"])
    }
}

impl Sequence<'_> {
    /// Some of the keys, with sudo or without.
    fn whole(&mut self, sudo: bool) -> WantedAccount {
        let chosen: Vec<_> = (0..KEYS).filter(|_| self.chance.below(2) == 0).collect();
        let grant = |number: usize| KeyGrant {
            public_key: key(number),
            options: KeyOptions::default(),
            until: None,
        };
        WantedAccount {
            keys: chosen.into_iter().map(grant).collect(),
            sudo: if sudo { Sudo::Plain } else { Sudo::None },
            ..WantedAccount::default()
        }
    }
}

/// One of the keys; the point need not be on the curve.
pub fn key(number: usize) -> PublicKey {
    let head = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhsc";
    let text = format!("ssh-ed25519 {head}AAA{number} key {number}");
    PublicKey::parse(&text, &KeyPolicy::ANY).unwrap()
}

//! What an administrator does by hand beside bastio, and the proof that it stays. Knows nothing of actions.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;

use bastio_tests::Host;

use super::model::{Model, key_file};
use super::{Chance, USERS};

/// Lines that others have in key files; each as it is.
const LINES: [&[u8]; 8] = [
    b"# a note\n",
    b"\n",
    b"from=\"10.0.0.0/8\",no-pty ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ broken\n",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP///////////////////////////////////////////w== other\n",
    b"caf\xe9 \xff\xfe\n",
    b"  \t leading blanks\r\n",
    b"cert-authority ssh-ed25519 AAAA\n",
    b"command=\"echo bastio:managed\" ssh-rsa AAAA not ours\n",
];
const OTHERS: [&str; 3] = ["dora", "emil", "fred"];
const GROUPS: [&str; 2] = ["web", "db"];
const RULES: [&str; 2] = ["/etc/sudoers.d/web", "/etc/sudoers.d/90-cloud"];
const DATABASES: [&str; 4] = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];

/// One who works beside bastio.
pub struct Administrator {
    /// All that is not bastio's, after the last thing done by hand.
    before: BTreeMap<String, Vec<String>>,
}

impl Administrator {
    pub fn new(host: &Host) -> Self {
        Self { before: foreign(host) }
    }

    /// Does something; says what.
    pub fn act(&mut self, host: &Host, model: &mut Model, chance: &mut Chance) -> String {
        // What bastio did since must not hide behind this.
        self.check(host);
        let (other, group) = (chance.one_of(&OTHERS), chance.one_of(&GROUPS));
        let what = match chance.below(8) {
            // Far from the numbers that bastio keeps for those who may come back.
            0 => self
                .run(host, &["useradd", "-m", "-K", "UID_MIN=5000", "-K", "GID_MIN=5000", other]),
            1 => self.run(host, &["userdel", "-r", other]),
            2 => self.run(host, &["groupadd", "-K", "GID_MIN=5000", group]),
            3 => self.run(host, &["gpasswd", "-a", other, group]),
            4 => {
                self.run(host, &["usermod", "-c", &format!("number {}", chance.below(100)), other])
            }
            5 => self.write_rule(host, chance),
            _ => self.write_line(host, model, chance),
        };
        self.before = foreign(host);
        format!("by hand: {what}")
    }

    /// Fails when anything that is not bastio's has changed since.
    #[track_caller]
    pub fn check(&self, host: &Host) {
        for (path, lines) in foreign(host) {
            assert_eq!(self.before.get(&path), Some(&lines), "{path}");
        }
    }

    fn run(&self, host: &Host, words: &[&str]) -> String {
        // It may be there already, or not be there.
        host.try_exec(words).unwrap();
        words[..words.len().min(2)].join(" ").split(" d").next().unwrap().to_owned()
    }

    fn write_rule(&self, host: &Host, chance: &mut Chance) -> String {
        let path = chance.one_of(&RULES);
        host.write_file(path, format!("# number {}\n%web ALL=(ALL) ALL\n", chance.below(100)))
            .unwrap();
        host.exec(&["chmod", "440", path]).unwrap();
        "a sudo rule".to_owned()
    }

    /// As `cat >>` would: without a look at what is there.
    fn write_line(&self, host: &Host, model: &mut Model, chance: &mut Chance) -> String {
        let user = chance.one_of(&USERS);
        let Some(managed) = model.0.get_mut(user) else { return "nothing".to_owned() };
        let (path, line) = (key_file(user), chance.one_of(&LINES));
        if !host.exists(&path).unwrap() {
            return "nothing".to_owned();
        }
        let appended = host.within(|| OpenOptions::new().append(true).open(&path)?.write_all(line));
        appended.unwrap().unwrap();
        managed.foreign.push(line.to_vec());
        "a line in a key file".to_owned()
    }
}

/// All lines of the account databases without the managed accounts, and all foreign sudo rules.
fn foreign(host: &Host) -> BTreeMap<String, Vec<String>> {
    let lines = DATABASES.iter().map(|path| {
        let text = String::from_utf8(host.read_file(path).unwrap()).unwrap();
        let lines = text.lines().filter(|line| !is_ours(line)).map(without_members).collect();
        ((*path).to_owned(), lines)
    });
    let rules = RULES.iter().map(|path| {
        let is_there = host.exists(path).unwrap();
        let text = is_there.then(|| String::from_utf8(host.read_file(path).unwrap()).unwrap());
        ((*path).to_owned(), text.into_iter().collect())
    });
    lines.chain(rules).collect()
}

/// The line of a managed account, of its group, or of bastio's own group.
fn is_ours(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    name == "bastio-managed" || USERS.iter().any(|user| *user == name && name != super::FOREIGN)
}

/// Managed accounts come and go among the members of a group.
fn without_members(line: &str) -> String {
    let (head, members) = line.rsplit_once(':').unwrap_or((line, ""));
    let others = members.split(',').filter(|member| !is_ours(member));
    format!("{head}:{}", others.collect::<Vec<_>>().join(","))
}

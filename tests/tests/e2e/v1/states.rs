//! Every state of every action of version 1, as one table: how the server is, what is asked, what is answered, and how
//! the server is then. Where the original's answer was wrong, the right one is expected here (docs/protocol.md, 4).

use std::fmt::Write as _;

use bastio_tests::require_root;
use serde_json::{Value, json};

use super::backend::Rig;

/// An RSA key, the only kind that an original agent knows, and another key.
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDK4DBEDoQHP+ngDtTnbwGHJxjcuATIIx6UXHdwtkzu9qI+MNk5DXU4qSQmhMciv++I6yGkrYM1ohE7EDUX46G/xisGKBzVeuHrroNtHxWQSBL1UZA+2GaKiTAVmdWmcUVUfe8HpjJ6EB+lFBfPIZ5P0MQLS/2/S8rg6PrVjVgOQJWzRVlclrX+nIdMRBfahh/H679d+JDi3WQYecR4kbLkouYagcCMMjFVsUOP7Ic6C/bpKEJkKRchVA+P0hOvHDmKi+v95WkZZWA0JtNStugQ0f1hS+FrlPGk+7ETN4nVKGfqtZprQ1pZBK7z0hJa57loKMmLuSAFKXH6o0pVolsj";
const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINeB8bN2QuW99K33W2fH7XLos7zPHw870dO+1nY4FumT";

/// What every script of the table may use.
const WORDS: &str = r#"
home=/home/alice; ssh=$home/.ssh; keys=$ssh/authorized_keys
is() { [ "$1" = "$2" ] || { echo "found: $1"; echo "not: $2"; exit 1; }; }
field() { getent "$1" alice | cut -d: -f"$2"; }
member() { id -nG alice | grep -qw "$1"; }
gone() { for name; do not [ -e "$name" ]; not [ -L "$name" ]; done; }
not() { if "$@"; then echo "not to be: $*"; exit 1; fi; }
no_account() { not getent passwd alice; not getent shadow alice; not getent group alice; }
write_keys() { printf "$@" > $keys; chown alice: $keys; chmod 600 $keys; }
key_files_are_sound() { is "$(stat -c '%F %a %U %G' $ssh $keys)" "directory 700 alice alice
$(stat -c %F $keys) 600 alice alice"; }
look() {
    cat /etc/passwd /etc/shadow /etc/group /etc/gshadow
    find /home /srv /root /var/mail /etc/shadow /etc/passwd -printf '%p %y %m %u %g %l\n' | sort
    [ ! -f $keys ] || base64 $keys
}
unchanged() { look | diff /run/before -; }
"#;

/// Takes away what the row before has left.
const CLEAN: &str = "
    userdel -f alice 2>/dev/null || true
    userdel -f svc 2>/dev/null || true
    groupdel alice 2>/dev/null || true
    getent group sudo >/dev/null || groupadd -g 27 sudo
    rm -rf /home/alice /var/mail/alice /srv/*";

/// How alice's account is before a row's own script runs.
#[derive(Clone, Copy)]
enum Given {
    Nothing,
    /// Made by the agent.
    Managed,
    /// Made by the agent, with sudo.
    Admin,
    /// Made by an administrator.
    Foreign,
}

#[derive(Clone, Copy)]
enum Ask {
    AddUser(bool),
    UpdateUser(bool),
    RemoveUser,
    AddKey(&'static str),
    RemoveKey(&'static str),
}

/// State, action, status, beginning of the text (`K` stands for the key asked for), look afterwards.
type Row = (&'static str, Given, &'static str, Ask, u64, &'static str, &'static str);

use Ask::{AddKey, AddUser, RemoveKey, RemoveUser, UpdateUser};
use Given::{Admin, Foreign, Managed, Nothing};

const FOREIGN: &str = "alice exists already and is not managed by bastio";
const ABSENT: &str = "alice does not exist";
const NO_SUDO: &str = "this host has neither a group sudo nor wheel";
const CREATED: &str = "alice was created successfully";
const EXISTS: &str = "alice already exists";
const REMOVED: &str = "alice was removed successfully";
const NOW_SUDO: &str = "alice was added to the sudo group successfully";
const ADDED: &str = "added public key to alice successfully";
const KEY_THERE: &str = "public key `K` for alice already exists";
const KEY_GONE: &str = "removed public key from alice successfully";
const NO_KEY: &str = "public key for alice does not exist";
const SSH_IS_LINK: &str = "/home/alice/.ssh is a symbolic link, not a folder";
const FILE_IS_LINK: &str = "/home/alice/.ssh/authorized_keys is a symbolic link, not a plain file";
const FILE_IS_FOLDER: &str = "/home/alice/.ssh/authorized_keys is a folder, not a plain file";

const LINK_SSH: &str = "rm -r $ssh; ln -s /root $ssh";
const LINK_FILE: &str = "ln -sf /etc/shadow $keys";
const FOLDER_FILE: &str = "rm $keys; install -d -o alice -g alice $keys";
const HOME_ELSEWHERE: &str = "mkdir /srv/people; usermod -m -d /srv/people/alice alice; is $(field passwd 6) /srv/people/alice";

#[rustfmt::skip] // one row a state
const ADD_USER: &[Row] = &[
    ("absent", Nothing, "", AddUser(false), 200, CREATED,
        "is \"$(field shadow 2)\" '*'; is $(field passwd 6) $home; key_files_are_sound; is $(stat -c %s $keys) 0; \
         member bastio-managed; not member sudo"),
    ("absent, with sudo", Nothing, "", AddUser(true), 200, CREATED, "member sudo; member bastio-managed"),
    ("absent, no group sudo", Nothing, "groupdel sudo", AddUser(false), 200, CREATED, "member bastio-managed"),
    ("absent, with sudo, no group sudo", Nothing, "groupdel sudo", AddUser(true), 500, NO_SUDO, "unchanged"),
    ("exists", Managed, "", AddUser(false), 300, EXISTS, "unchanged"),
    ("exists with sudo", Admin, "", AddUser(true), 300, EXISTS, "unchanged"),
    ("exists, no sudo yet", Managed, "", AddUser(true), 200, "alice already exists; its sudo rights were changed", "member sudo"),
    ("exists, sudo still", Admin, "", AddUser(false), 200, "alice already exists; its sudo rights were changed", "not member sudo"),
    ("exists, .ssh missing", Managed, "rm -r $ssh", AddUser(false), 300, EXISTS, "key_files_are_sound"),
    ("exists, file missing", Managed, "rm $keys", AddUser(false), 300, EXISTS, "key_files_are_sound"),
    ("exists, loose modes", Managed, "write_keys \"$RSA\\n\"; chmod 777 $ssh $keys", AddUser(false), 300, EXISTS,
        "key_files_are_sound; is \"$(cat $keys)\" \"$RSA\""),
    ("exists, .ssh is a link", Managed, LINK_SSH, AddUser(false), 500, SSH_IS_LINK, "unchanged"),
    ("exists, file is a link", Managed, LINK_FILE, AddUser(false), 500, FILE_IS_LINK, "unchanged"),
    ("exists, home missing", Managed, "rm -r $home", AddUser(false), 500, "the home /home/alice is missing", "unchanged"),
    ("not managed", Foreign, "", AddUser(true), 500, FOREIGN, "unchanged; gone $ssh"),
    ("not managed, home elsewhere", Foreign, HOME_ELSEWHERE, AddUser(true), 500, FOREIGN, "unchanged"),
    ("not managed, home missing", Foreign, "rm -r $home", AddUser(false), 500, FOREIGN, "unchanged"),
    ("home left over", Nothing, "mkdir $home; echo secret > $home/notes", AddUser(false), 500,
        "a folder is left over at /home/alice, it belongs to root", "unchanged; no_account"),
    ("group exists", Nothing, "groupadd alice", AddUser(false), 500, "a group alice exists already", "unchanged; gone $home"),
];

#[rustfmt::skip]
const REMOVE_USER: &[Row] = &[
    ("mail spool there", Managed, "install -o alice -g mail -m 660 /dev/null /var/mail/alice", RemoveUser, 200, REMOVED,
        "no_account; gone $home /var/mail/alice"),
    ("no mail spool", Managed, "rm -f /var/mail/alice", RemoveUser, 200, REMOVED, "no_account; gone $home"),
    ("with sudo", Admin, "", RemoveUser, 200, REMOVED, "no_account; is \"$(getent group sudo | cut -d: -f4)\" ''"),
    ("absent", Nothing, "", RemoveUser, 300, ABSENT, "unchanged"),
    ("absent, home left over", Nothing, "mkdir $home", RemoveUser, 300, ABSENT, "unchanged"),
    ("process running", Managed, "setpriv --reuid alice --regid alice --clear-groups sleep 999 </dev/null >/dev/null 2>&1 & \
        until ps -u alice >/dev/null; do sleep 0.02; done", RemoveUser, 200, REMOVED,
        "no_account; gone $home; is \"$(ps -eo args= | grep -c '^sleep 999')\" 0"),
    ("home missing", Managed, "rm -r $home", RemoveUser, 200, REMOVED, "no_account"),
    ("home elsewhere", Managed, HOME_ELSEWHERE, RemoveUser, 200, REMOVED, "no_account; gone /srv/people/alice"),
    ("home is a link", Managed, "mv $home /srv/alice; ln -s /srv/alice $home", RemoveUser, 200,
        "alice was removed successfully; its home was left: /home/alice is no real folder", "no_account; [ -d /srv/alice ]"),
    ("not managed", Foreign, "", RemoveUser, 500, FOREIGN, "unchanged"),
    ("not managed, home missing", Foreign, "rm -r $home", RemoveUser, 500, FOREIGN, "unchanged"),
];

#[rustfmt::skip]
const UPDATE_USER: &[Row] = &[
    ("sudo", Managed, "", UpdateUser(true), 200, NOW_SUDO, "member sudo"),
    ("sudo, member already", Admin, "", UpdateUser(true), 200, NOW_SUDO, "unchanged"),
    ("no sudo, a member", Admin, "", UpdateUser(false), 200, "alice was removed from the sudo group successfully",
        "not member sudo; member bastio-managed"),
    ("no sudo, no member", Managed, "", UpdateUser(false), 300, "alice is not a member of the sudo group", "unchanged"),
    ("sudo, no group sudo", Managed, "groupdel sudo", UpdateUser(true), 500, NO_SUDO, "unchanged"),
    ("no sudo, no group sudo", Managed, "groupdel sudo", UpdateUser(false), 300, "alice is not a member of the sudo group",
        "unchanged"),
    ("absent", Nothing, "", UpdateUser(true), 500, ABSENT, "unchanged"),
    ("not managed", Foreign, "", UpdateUser(true), 500, FOREIGN, "unchanged"),
];

#[rustfmt::skip]
const ADD_KEY: &[Row] = &[
    ("absent", Nothing, "", AddKey(RSA), 500, ABSENT, "unchanged"),
    ("home left over", Nothing, "mkdir -p $ssh", AddKey(RSA), 500, ABSENT, "unchanged"),
    ("not managed", Foreign, "", AddKey(RSA), 500, FOREIGN, "unchanged"),
    ("no key yet", Managed, "", AddKey(RSA), 200, ADDED, "key_files_are_sound; is \"$(cat $keys)\" \"$RSA bastio:managed\""),
    ("no key yet, ed25519", Managed, "", AddKey(ED25519), 200, ADDED, "is \"$(cat $keys)\" \"$ED25519 bastio:managed\""),
    ("another key there", Managed, "write_keys \"$ED25519\\n\"", AddKey(RSA), 200, ADDED,
        "is \"$(cat $keys)\" \"$ED25519\n$RSA bastio:managed\""),
    ("key there", Managed, "write_keys \"$RSA\\n\"", AddKey(RSA), 300, KEY_THERE, "unchanged"),
    ("key there, another comment", Managed, "write_keys \"$RSA old laptop\\n\"", AddKey(RSA), 300, KEY_THERE, "unchanged"),
    ("key there behind options", Managed, "write_keys 'no-pty,command=\"a b\" %s\\n' \"$RSA\"", AddKey(RSA), 300, KEY_THERE,
        "unchanged"),
    ("key in a comment line", Managed, "write_keys '# %s\\n' \"$RSA\"", AddKey(RSA), 200, ADDED,
        "is \"$(cat $keys)\" \"# $RSA\n$RSA bastio:managed\""),
    ("final newline missing", Managed, "write_keys \"$ED25519\"", AddKey(RSA), 200, ADDED,
        "is \"$(cat $keys)\" \"$ED25519\n$RSA bastio:managed\""),
    ("lines end in CR LF", Managed, "write_keys \"$ED25519\\r\\n\"", AddKey(RSA), 200, ADDED,
        "is \"$(head -n 1 $keys)\" \"$ED25519\"$'\\r'; is \"$(grep -c \"^$RSA bastio:managed\" $keys)\" 1"),
    ("non-ASCII byte in the file", Managed, "write_keys '# caf\\xe9\\n'", AddKey(RSA), 200, ADDED,
        "is \"$(head -n 1 $keys | od -An -tx1)\" ' 23 20 63 61 66 e9 0a'; is \"$(tail -n 1 $keys)\" \"$RSA bastio:managed\""),
    ("file missing", Managed, "rm $keys", AddKey(RSA), 200, ADDED, "key_files_are_sound; is \"$(cat $keys)\" \"$RSA bastio:managed\""),
    (".ssh missing", Managed, "rm -r $ssh", AddKey(RSA), 200, ADDED, "key_files_are_sound; is \"$(cat $keys)\" \"$RSA bastio:managed\""),
    ("home missing", Managed, "rm -r $home", AddKey(RSA), 500, "the home /home/alice is missing", "unchanged"),
    ("file is a folder", Managed, FOLDER_FILE, AddKey(RSA), 500, FILE_IS_FOLDER, "unchanged"),
    ("file is a link", Managed, LINK_FILE, AddKey(RSA), 500, FILE_IS_LINK, "unchanged"),
    ("file is a FIFO", Managed, "rm $keys; mkfifo $keys; chown alice: $keys", AddKey(RSA), 500,
        "/home/alice/.ssh/authorized_keys is a FIFO, not a plain file", "unchanged"),
    ("file is root's", Managed, "chown root $keys", AddKey(RSA), 500, "/home/alice/.ssh/authorized_keys belongs to uid 0", "unchanged"),
    (".ssh is a link", Managed, LINK_SSH, AddKey(RSA), 500, SSH_IS_LINK, "unchanged"),
    ("key with a non-ASCII comment", Managed, "", AddKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINeB8bN2QuW99K33W2fH7XLos7zPHw870dO+1nY4FumT café"),
        200, ADDED, "is \"$(cat $keys)\" \"$ED25519 café bastio:managed\""),
];

#[rustfmt::skip]
const REMOVE_KEY: &[Row] = &[
    ("absent", Nothing, "", RemoveKey(RSA), 500, ABSENT, "unchanged"),
    ("not managed", Foreign, "", RemoveKey(RSA), 500, FOREIGN, "unchanged"),
    ("key not there", Managed, "write_keys \"$ED25519\\n\"", RemoveKey(RSA), 300, NO_KEY, "unchanged"),
    ("key in a comment line alone", Managed, "write_keys '# %s\\n' \"$RSA\"", RemoveKey(RSA), 300, NO_KEY, "unchanged"),
    ("file missing", Managed, "rm $keys", RemoveKey(RSA), 300, NO_KEY, "unchanged"),
    (".ssh missing", Managed, "rm -r $ssh", RemoveKey(RSA), 300, NO_KEY, "unchanged"),
    ("key there", Managed, "write_keys \"$ED25519\\n$RSA bastio:managed\\n\"", RemoveKey(RSA), 200, KEY_GONE,
        "key_files_are_sound; is \"$(cat $keys)\" \"$ED25519\""),
    ("key there, another comment", Managed, "write_keys \"$RSA old laptop\\n\"", RemoveKey(RSA), 200, KEY_GONE, "is \"$(cat $keys)\" ''"),
    ("key there in several lines", Managed,
        "write_keys '# %s\\n%s one\\n%s\\nno-pty,command=\"a b\" %s two\\n%s' \"$RSA\" \"$RSA\" \"$ED25519\" \"$RSA\" \"$RSA\"",
        RemoveKey(RSA), 200, KEY_GONE, "is \"$(cat $keys)\" \"# $RSA\n$ED25519\""),
    ("non-ASCII byte in the file", Managed, "write_keys '# caf\\xe9\\n%s\\n' \"$RSA\"", RemoveKey(RSA), 200, KEY_GONE,
        "is \"$(od -An -tx1 $keys)\" ' 23 20 63 61 66 e9 0a'"),
    ("home missing", Managed, "rm -r $home", RemoveKey(RSA), 500, "the home /home/alice is missing", "unchanged"),
    ("file is a folder", Managed, FOLDER_FILE, RemoveKey(RSA), 500, FILE_IS_FOLDER, "unchanged"),
    ("file is a link", Managed, LINK_FILE, RemoveKey(RSA), 500, FILE_IS_LINK, "unchanged"),
    (".ssh is a link", Managed, LINK_SSH, RemoveKey(RSA), 500, SSH_IS_LINK, "unchanged"),
];

impl Ask {
    fn of(self, user: &str) -> Value {
        match self {
            AddUser(sudo) => json!({"action": "add-user", "username": user, "sudo": sudo}),
            UpdateUser(sudo) => json!({"action": "update-user", "username": user, "sudo": sudo}),
            RemoveUser => json!({"action": "remove-user", "username": user}),
            AddKey(key) => json!({"action": "add-key", "username": user, "public_key": key}),
            RemoveKey(key) => json!({"action": "remove-key", "username": user, "public_key": key}),
        }
    }

    fn key(self) -> &'static str {
        match self {
            AddKey(key) | RemoveKey(key) => key,
            _ => "",
        }
    }
}

/// Goes through the rows; all that went wrong is told at once.
fn go_through(rows: &[Row]) {
    let mut rig = Rig::start(&[]);
    // So that the group of managed accounts is there from the first row on.
    prepare(&mut rig, Managed, "");
    let mut wrong = String::new();
    for &(state, given, script, ask, status, text, look) in rows {
        prepare(&mut rig, given, script);
        let answer = rig.backend.feedback(&ask.of("alice"));
        let text = text.replace("`K`", &format!("`{}`", ask.key()));
        if answer.status != status || !answer.text.starts_with(&text) {
            writeln!(wrong, "{state}: {} {}", answer.status, answer.text).unwrap();
        }
        let found = try_shell(&rig, look);
        if !found.success() {
            writeln!(wrong, "{state}, afterwards: {}{}", found.stdout, found.stderr).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    rig.backend.finish();
}

fn prepare(rig: &mut Rig, given: Given, script: &str) {
    rig.shell(CLEAN);
    if let Managed | Admin = given {
        let answer = rig.backend.feedback(&AddUser(matches!(given, Admin)).of("alice"));
        assert_eq!((answer.status, answer.text.as_str()), (200, CREATED));
    }
    let foreign = if let Foreign = given { "useradd -m -U alice" } else { ":" };
    let prepared = try_shell(rig, &format!("{foreign}\n{script}\nlook > /run/before"));
    assert!(prepared.success(), "{script}: {prepared:?}");
}

fn try_shell(rig: &Rig, text: &str) -> bastio_tests::Finished {
    let bash = rig.host.command("bash").env("RSA", RSA).env("ED25519", ED25519);
    bash.args(["-eu", "-c", &format!("{WORDS}\n{text}")]).run().unwrap()
}

#[test]
fn add_user_in_every_state() {
    require_root!();
    go_through(ADD_USER);
}

#[test]
fn remove_user_in_every_state() {
    require_root!();
    go_through(REMOVE_USER);
}

#[test]
fn update_user_in_every_state() {
    require_root!();
    go_through(UPDATE_USER);
}

#[test]
fn add_key_in_every_state() {
    require_root!();
    go_through(ADD_KEY);
}

#[test]
fn remove_key_in_every_state() {
    require_root!();
    go_through(REMOVE_KEY);
}

#[test]
fn accounts_of_the_system_are_left_alone() {
    require_root!();
    let mut rig = Rig::start(&[]);
    prepare(&mut rig, Nothing, "");
    for user in ["root", "daemon", "bastio"] {
        for ask in [AddUser(true), RemoveUser, UpdateUser(true), AddKey(RSA), RemoveKey(RSA)] {
            let answer = rig.backend.feedback(&ask.of(user));
            let text = format!("{user} is an account of the system itself");
            assert!(answer.status == 500 && answer.text.starts_with(&text), "{answer:?}");
        }
    }
    let after = try_shell(&rig, "unchanged");
    assert!(after.success(), "{after:?}");
}

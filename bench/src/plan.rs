//! The plan for a whole fleet: what every server must look like by the model, and what it has to be told. Knows the
//! planner's code, which is pure, and nothing else of the backend.

use std::collections::BTreeMap;
use std::time::Instant;

use bastio_backend::plan::{Accounts, Entitlement, Host, Index, Rights, difference};
use bastio_protocol::{KeyGrant, KeyPolicy, PublicKey, ServerName, Sudo, Username};
use bastio_transport::{KeyKind, PrivateKey};

use crate::{BenchError, over};

const SERVERS: usize = 10_000;
const PEOPLE: usize = 500;
const GRANTS: usize = 2_000;
/// Longest time for all of it, in seconds.
const LIMIT: f64 = 2.0;
/// Each the middle of so many.
const RUNS: usize = 3;

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let (model, hosts) = (model()?, hosts()?);
    let mut times = Vec::new();
    let (mut accounts, mut steps) = (0, 0);
    for _ in 0..RUNS {
        let begin = Instant::now();
        let index = Index::new(&model);
        (accounts, steps) = (0, 0);
        for host in &hosts {
            let (wanted, _) = index.merge_these(&index.about(host), host);
            accounts += wanted.len();
            steps += difference(&wanted, &Accounts::new()).len();
        }
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let middle = times.get(RUNS / 2).copied().unwrap_or(f64::INFINITY);
    println!("\nplan: {SERVERS} servers, {PEOPLE} people, {GRANTS} grants\n");
    println!("{:>10} {:>10} {:>10} {:>10}", "accounts", "steps", "seconds", "limit");
    println!("{accounts:>10} {steps:>10} {middle:>10.2} {LIMIT:>10.2}");
    over(middle > LIMIT, || format!("a plan of {middle:.2} s instead of {LIMIT}"))
}

/// Everybody has some servers by name and some by their labels; every hundredth grant is for all servers.
fn model() -> Result<Vec<Entitlement>, BenchError> {
    let people = (0..PEOPLE).map(person).collect::<Result<Vec<_>, _>>()?;
    (0..GRANTS)
        .zip(people.iter().cycle())
        .map(|(number, (login, keys))| {
            let on = match number % 100 {
                0 => "*".to_owned(),
                1..50 => {
                    let names = (0..10).map(|place| name((number * 37 + place * 991) % SERVERS));
                    names.collect::<Vec<_>>().join(",")
                }
                _ => format!("role=r{},env!=e{}", number % 50, number % 4),
            };
            let sudo = if number % 7 == 0 { Sudo::Plain } else { Sudo::None };
            let rights = Rights { sudo, keys: keys.clone(), ..Rights::default() };
            let on = on.parse().map_err(|error| odd(&error))?;
            Ok(Entitlement { on, login: login.clone(), rights })
        })
        .collect()
}

fn person(number: usize) -> Result<(Username, Vec<KeyGrant>), BenchError> {
    let key = || -> Result<KeyGrant, BenchError> {
        let made = PrivateKey::generate(KeyKind::Ed25519).map_err(|error| odd(&error))?;
        let key = PublicKey::parse(&made.public_line(), &KeyPolicy::ANY).map_err(|e| odd(&e))?;
        Ok(KeyGrant::plain(key))
    };
    let login = Username::parse(&format!("person{number}")).map_err(|error| odd(&error))?;
    Ok((login, vec![key()?, key()?]))
}

fn name(number: usize) -> String {
    format!("srv-{number:05}")
}

fn hosts() -> Result<Vec<Host>, BenchError> {
    let host = |number: usize| {
        let label = |name: &str, value: String| (name.to_owned(), value);
        let labels = BTreeMap::from([
            label("role", format!("r{}", number % 50)),
            label("env", format!("e{}", number % 4)),
            label("host/os", "Debian GNU/Linux 12".replace([' ', '/'], "_")),
        ]);
        Ok(Host { name: ServerName::parse(&name(number)).map_err(|error| odd(&error))?, labels })
    };
    (0..SERVERS).map(host).collect()
}

fn odd(error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Child(error.to_string())
}

//! The wires of a world: one bridge with the backend's address, and one virtual cable to each server.

use std::net::{IpAddr, Ipv4Addr};

use crate::{LabError, Place};

/// The address of the backend's side of every world.
pub const BACKEND_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

const BRIDGE: &str = "lab0";

/// The address of the server with this number (from 1 on: 10.77.0.11, ...).
pub(crate) fn server_address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, number.saturating_add(10)))
}

/// Brings up loopback and the bridge of a new world.
pub(crate) fn set_up_world(world: &Place) -> Result<(), LabError> {
    ip(
        world,
        &format!(
            "link set lo up\n\
             link add {BRIDGE} address 02:77:00:00:00:01 type bridge\n\
             addr add {BACKEND_ADDRESS}/24 dev {BRIDGE}\n\
             link set {BRIDGE} up\n"
        ),
    )
}

/// Connects a new server to the bridge.
pub(crate) fn connect_server(world: &Place, host: &Place, number: u8) -> Result<(), LabError> {
    let init = host.init_pid();
    let address = server_address(number);
    ip(world, &format!("link add server{number} type veth peer name eth0 netns {init}\n"))?;
    ip(host, &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
    ip(world, &format!("link set server{number} master {BRIDGE} up\n"))
}

/// Makes a network of its own for a server that is to be booted, and connects it to the bridge. Returns its path in the
/// world; it stays there while the server is off.
pub(crate) fn connect_booted(
    world: &Place,
    name: &str,
    number: u8,
) -> Result<std::path::PathBuf, LabError> {
    let address = server_address(number);
    let batch = |words: &[&str], lines: &str| {
        world.command("ip").args(words).args(["-batch", "-"]).input(lines).check()
    };
    batch(
        &[],
        &format!(
            "netns add {name}\nlink add server{number} type veth peer name eth0 netns {name}\n"
        ),
    )?;
    batch(
        &["-n", name],
        &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"),
    )?;
    batch(&[], &format!("link set server{number} master {BRIDGE} up\n"))?;
    Ok(std::path::Path::new("/run/netns").join(name))
}

/// Takes a server's cable out, or puts it in again.
pub(crate) fn set_cable(world: &Place, number: u8, plugged: bool) -> Result<(), LabError> {
    let state = if plugged { "up" } else { "down" };
    ip(world, &format!("link set server{number} {state}\n"))
}

fn ip(place: &Place, batch: &str) -> Result<(), LabError> {
    place.command("ip").args(["-batch", "-"]).network_only().input(batch).check().map(drop)
}

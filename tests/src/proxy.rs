//! A TCP proxy in a world that can be told to misbehave: cut, hold back, delay, dribble. One thread a direction.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::shutdown;

use crate::{LabError, Place, World};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the side that dialled (an agent) to the side that listens (the backend).
    ToServer,
    /// From the side that listens to the side that dialled.
    ToClient,
}

/// A running proxy. Dropping it closes all its connections and ends its threads.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    refusing: bool,
    /// Ways that carry nothing: to the server, to the client.
    held: (bool, bool),
    one_byte: bool,
    delay: Duration,
    /// Bytes still let through in a direction before everything is cut.
    cut_after: Option<(Direction, usize)>,
    cuts: usize,
    /// Bytes carried so far, to the server and to the client.
    carried: (usize, usize),
    accepted: usize,
    open: Vec<TcpStream>,
}

impl Proxy {
    /// Listens on the world's address and a free port; forwards to `target`.
    ///
    /// # Errors
    /// [`LabError::System`] when it can't listen.
    pub fn start(world: &World, target: SocketAddr) -> Result<Self, LabError> {
        let listener = world.listen(world.address(0))?;
        let address =
            listener.local_addr().map_err(LabError::doing("learn the proxy's own address"))?;
        let shared = Arc::new(Shared::default());
        let place = Place::clone(world);
        let (theirs, their_listener) = (Arc::clone(&shared), listener.try_clone());
        let their_listener = their_listener.map_err(LabError::doing("share the proxy's socket"))?;
        let accepting = thread::spawn(move || accept_all(&their_listener, &place, target, &theirs));
        Ok(Self { address, shared, listener, accepting: Some(accepting) })
    }

    /// Where to connect to instead of the target.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections after `bytes` more bytes in a direction; later connections work again.
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        self.change(|state| state.cut_after = Some((direction, bytes)));
    }

    /// Cuts all connections now.
    pub fn cut(&self) {
        self.change(State::cut);
    }

    /// Carries nothing from now on, without closing anything: a dead line.
    pub fn black_hole(&self) {
        self.change(|state| state.held = (true, true));
    }

    /// Carries nothing in this direction from now on, without closing anything.
    pub fn hold(&self, direction: Direction) {
        self.change(|state| match direction {
            Direction::ToServer => state.held.0 = true,
            Direction::ToClient => state.held.1 = true,
        });
    }

    /// Closes new connections at once.
    pub fn refuse(&self) {
        self.change(|state| state.refusing = true);
    }

    /// Carries every byte in a packet of its own.
    pub fn one_byte_pieces(&self) {
        self.change(|state| state.one_byte = true);
    }

    /// Holds every piece back for this long.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Behaves again: carries what was held back too.
    pub fn resume(&self) {
        self.change(|state| {
            (state.held, state.refusing, state.one_byte) = ((false, false), false, false);
            (state.delay, state.cut_after) = (Duration::ZERO, None);
        });
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }

    /// Bytes carried so far in a direction.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> usize {
        let carried = self.shared.lock().carried;
        match direction {
            Direction::ToServer => carried.0,
            Direction::ToClient => carried.1,
        }
    }

    /// Waits until connections have been cut `times` times in all (by [`Proxy::cut`] or [`Proxy::cut_after`]).
    ///
    /// # Errors
    /// [`LabError::TimedOut`].
    pub fn wait_for_cuts(&self, times: usize, limit: Duration) -> Result<(), LabError> {
        self.wait(limit, "wait for the proxy to cut", |state| state.cuts >= times)
    }

    /// Waits until `times` connections have been accepted in all.
    ///
    /// # Errors
    /// [`LabError::TimedOut`].
    pub fn wait_for_connections(&self, times: usize, limit: Duration) -> Result<(), LabError> {
        self.wait(limit, "wait for connections at the proxy", |state| state.accepted >= times)
    }

    fn wait(
        &self,
        limit: Duration,
        doing: &str,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), LabError> {
        let waiting =
            self.shared.changed.wait_timeout_while(self.shared.lock(), limit, |state| !done(state));
        let (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if done(&state) { Ok(()) } else { Err(LabError::TimedOut { doing: doing.into(), limit }) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|state| {
            state.stopping = true;
            state.cut();
        });
        // Makes accept() return in the other thread. Fails only if that has ended already.
        let _ = shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl State {
    fn holds(&self, way: Direction) -> bool {
        match way {
            Direction::ToServer => self.held.0,
            Direction::ToClient => self.held.1,
        }
    }

    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.cuts += 1;
        self.cut_after = None;
    }
}

/// What to do with some bytes.
struct Order {
    allowed: usize,
    piece: usize,
    delay: Duration,
    then_cut: bool,
}

impl Shared {
    /// Decides, when the line is not held any more, what to do with `count` bytes, and counts them.
    fn order(&self, count: usize, way: Direction) -> Order {
        let held = |state: &mut State| state.holds(way) && !state.stopping;
        let mut state =
            self.changed.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner);
        let mut allowed = count;
        let mut then_cut = false;
        if let Some((cut_way, left)) = &mut state.cut_after
            && *cut_way == way
        {
            allowed = count.min(*left);
            *left -= allowed;
            then_cut = *left == 0;
        }
        match way {
            Direction::ToServer => state.carried.0 += allowed,
            Direction::ToClient => state.carried.1 += allowed,
        }
        let piece = if state.one_byte { 1 } else { usize::MAX };
        Order { allowed, piece, delay: state.delay, then_cut }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept_all(listener: &TcpListener, place: &Place, target: SocketAddr, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        if shared.lock().stopping {
            break;
        }
        if let Ok(pair) = open_pair(client, place, target, shared) {
            pumps.extend(pair);
        }
        shared.changed.notify_all();
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn open_pair(
    client: TcpStream,
    place: &Place,
    target: SocketAddr,
    shared: &Arc<Shared>,
) -> io::Result<[JoinHandle<()>; 2]> {
    shared.lock().accepted += 1;
    if shared.lock().refusing {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let server = place
        .within(|| TcpStream::connect_timeout(&target, CONNECT_LIMIT))
        .map_err(io::Error::other)??;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let both = [client.try_clone()?, server.try_clone()?];
    let mut state = shared.lock();
    if state.stopping {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    state.open.extend(both);
    drop(state);
    let (client_reader, server_reader) = (client.try_clone()?, server.try_clone()?);
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    Ok([
        thread::spawn(move || pump(client_reader, server, Direction::ToServer, &up)),
        thread::spawn(move || pump(server_reader, client, Direction::ToClient, &down)),
    ])
}

/// Carries bytes one way until an end closes or everything is cut.
fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let bytes = buffer.get(..count).unwrap_or_default();
        if carry(bytes, &mut to, direction, shared).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn carry(bytes: &[u8], to: &mut TcpStream, way: Direction, shared: &Shared) -> io::Result<()> {
    let order = shared.order(bytes.len(), way);
    thread::sleep(order.delay);
    for chunk in bytes.get(..order.allowed).unwrap_or_default().chunks(order.piece) {
        to.write_all(chunk)?;
    }
    if order.then_cut {
        shared.lock().cut();
        shared.changed.notify_all();
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

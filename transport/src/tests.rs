//! Client and server against each other, and against OpenSSH, over loopback. Every test ends
//! within [`LIMIT`].

mod hostile;
mod odd;
mod openssh;
mod pair;
mod rig;

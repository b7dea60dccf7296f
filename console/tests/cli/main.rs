//! The binary `bastio` as a user meets it: arguments and environment in; exit code, stdout, stderr
//! and requests out. The backend is a thread with scripted answers.

mod arguments;
mod backend;
mod edits;
mod groups;
mod keys;
mod lists;
mod log;
mod login;
mod proposals;
mod rights;
mod runner;
mod terminal;

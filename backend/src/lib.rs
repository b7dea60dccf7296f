//! The central program: who may log in where, decided in one place and queued durably.

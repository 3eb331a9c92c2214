//! ECHO, TIME, DAYTIME and QOTD (RFC 862, 868, 867, 865).

pub mod services;

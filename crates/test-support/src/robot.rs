//! 小Zurich, made once: where all is slow, as under Miri, that takes long.

use std::sync::{Arc, LazyLock};

use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::Ctime;
use rejoinder::sans_io::ServerCore;

/// A core of its own for each test, around the one robot.
pub fn core() -> ServerCore<Ctime, Arc<Robot>> {
    ServerCore::new(Ctime::utc(), handler())
}

/// The one robot.
pub fn handler() -> Arc<Robot> {
    static ROBOT: LazyLock<Arc<Robot>> = LazyLock::new(|| Arc::new(zurich()));
    Arc::clone(&ROBOT)
}

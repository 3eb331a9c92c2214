//! 小Zurich, made once: where all is slow, as under Miri, that takes long.

use std::sync::{Arc, LazyLock};

use rejoinder::{Ctime, Robot, ServerCore, zurich};

/// A core of its own for each test, around the one robot.
pub(crate) fn core() -> ServerCore<Ctime, Robot> {
    static ROBOT: LazyLock<Arc<Robot>> = LazyLock::new(|| Arc::new(zurich()));
    ServerCore::shared(Ctime::utc(), Arc::clone(&ROBOT))
}

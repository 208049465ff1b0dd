//! The two servers that a case is tried on.

use jetring::testing::MockServer;

use crate::server::NatsServer;

pub(crate) enum Target {
    Mock(MockServer),
    Real(NatsServer),
}

impl Target {
    pub(crate) fn mock() -> Self {
        Self::Mock(MockServer::start())
    }

    pub(crate) fn real() -> Self {
        Self::Real(NatsServer::start())
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Mock(server) => server.url(),
            Self::Real(server) => server.url(),
        }
    }
}

/// Makes two tests of each case.
macro_rules! on_both {
    ($($case:ident,)*) => {
        mod mock {
            $(#[test]
            fn $case() {
                super::$case(&crate::target::Target::mock());
            })*
        }

        mod real {
            $(#[test]
            fn $case() {
                super::$case(&crate::target::Target::real());
            })*
        }
    };
}

pub(crate) use on_both;

/// Runs what a test itself asks of a server.
pub(crate) fn ask<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime").block_on(question)
}

//! Looks names up. Each look-up takes a thread until the name service has answered: it can be given up, but not
//! interrupted. Simultaneous requests for the same name share one look-up, so that a slow name costs one thread,
//! however often it is requested.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::{Mutex, MutexGuard};

use super::descriptors::Share;

/// The most names of one publisher that are looked up at once: each takes a thread.
pub(super) const LOOKUPS_MAX: usize = 64;
/// The most addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 32;

/// Turns names into addresses. The default asks the system; tests use others.
#[derive(Clone)]
pub struct Resolver(Arc<LookUp>);

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// A resolver that calls `look_up`, which may block, on a thread of its own for each name.
    pub fn new(look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address: SocketAddr| address.ip()).collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The addresses of a name, in the order in which the system prefers them; or why there are none.
pub(super) type Addresses = Result<Arc<[IpAddr]>, Arc<str>>;

/// The look-ups of one publisher. They run on the caller's runtime.
pub(super) struct Lookups {
    resolver: Resolver,
    share: Arc<Share>,
    under_way: Mutex<HashMap<String, Shared<BoxFuture<'static, Addresses>>>>,
}

impl Lookups {
    pub(super) fn new(resolver: Resolver, share: Arc<Share>) -> Arc<Self> {
        Arc::new(Self { resolver, share, under_way: Mutex::default() })
    }

    /// The addresses of `name`. Dropping the future does not end the look-up: the next request for the name shares it.
    pub(super) async fn addresses(self: &Arc<Self>, name: &str) -> Addresses {
        let look_up = self.under_way().entry(name.to_owned()).or_insert_with(|| self.start(name.to_owned())).clone();
        look_up.await
    }

    fn start(self: &Arc<Self>, name: String) -> Shared<BoxFuture<'static, Addresses>> {
        let lookups = self.clone();
        let task = tokio::spawn(async move {
            let addresses = lookups.look_up(name.clone()).await;
            lookups.under_way().remove(&name);
            addresses
        });
        let ended = |error| Err(Arc::from(format!("the look-up was ended: {error}")));
        task.map(move |addresses| addresses.unwrap_or_else(ended)).boxed().shared()
    }

    async fn look_up(&self, name: String) -> Addresses {
        // The look-up needs a socket.
        let descriptor = self.share.take().await;
        let resolver = self.resolver.clone();
        let found = tokio::task::spawn_blocking(move || {
            let _descriptor = descriptor;
            (resolver.0)(&name)
        });
        match found.await {
            Ok(Ok(addresses)) => Ok(addresses.into_iter().take(ADDRESSES_MAX).collect()),
            Ok(Err(error)) => Err(error.to_string().into()),
            Err(error) => Err(error.to_string().into()),
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Shared<BoxFuture<'static, Addresses>>>> {
        self.under_way.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::descriptors::Descriptors;
    use super::*;

    fn lookups(resolver: Resolver) -> Arc<Lookups> {
        Lookups::new(resolver, Share::new(Arc::new(Descriptors::new(1_000)), 256))
    }

    fn at(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// A resolver that answers for `slow` only after a message, and at once for any other name; and a count of its
    /// calls.
    fn with_a_slow_name() -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (go_on, told) = mpsc::channel::<()>();
        let (told, asked) = (Mutex::new(told), Arc::<AtomicUsize>::default());
        let count = asked.clone();
        let resolver = Resolver::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            if name == "slow" {
                let _ = told.lock().recv();
            }
            Ok(vec![at(1)])
        });
        (resolver, go_on, asked)
    }

    #[tokio::test]
    async fn a_slow_name_is_looked_up_once_and_holds_up_no_other() {
        let (resolver, go_on, asked) = with_a_slow_name();
        let lookups = lookups(resolver);
        for _ in 0..200 {
            let given_up = timeout(Duration::from_millis(1), lookups.addresses("slow")).await;
            assert!(given_up.is_err());
        }
        assert_eq!(lookups.addresses("quick").await.unwrap()[..], [at(1)]);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        drop(go_on);
        assert_eq!(lookups.addresses("slow").await.unwrap()[..], [at(1)]);
        assert!(lookups.under_way().is_empty());
    }

    #[tokio::test]
    async fn what_was_answered_is_asked_for_again_the_next_time() {
        let (resolver, _go_on, asked) = with_a_slow_name();
        let lookups = lookups(resolver);
        for _ in 0..3 {
            lookups.addresses("quick").await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_who_wait() {
        let lookups = lookups(Resolver::new(|name| Err(io::Error::other(format!("no {name}")))));
        let (one, other) = tokio::join!(lookups.addresses("name"), lookups.addresses("name"));
        assert_eq!((&*one.unwrap_err(), &*other.unwrap_err()), ("no name", "no name"));
    }
}

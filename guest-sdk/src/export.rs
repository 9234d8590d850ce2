use std::time::Duration;

use crate::{
    BatchPublisher, BoxError, Error, Publisher, Recorded,
    bindings::{batch, contract, lifecycle, publisher},
    error::Kind,
};

/// Exports a publisher from this component. Use it once in a component.
///
/// - `export!(P)` where `P: Publisher + Default`.
/// - `export!(P, batch)` exports [`BatchPublisher`](crate::BatchPublisher) as well.
/// - `export!(P, lifecycle)` makes `P` with [`Lifecycle`](crate::Lifecycle) instead of `Default`.
/// - `export!(P, batch, lifecycle)` does both.
///
/// Each trait's page shows it in use. On targets other than wasm it only checks the types, so that a publisher's tests
/// run natively.
///
/// An unknown option, or one whose trait `P` does not implement, does not compile:
///
/// ```compile_fail
/// # use outbox_guest::{Error, Publisher, Recorded};
/// # #[derive(Default)]
/// # struct Printer;
/// # impl Publisher for Printer {
/// #     fn publish(&mut self, _: Recorded) -> Result<(), Error> { Ok(()) }
/// # }
/// outbox_guest::export!(Printer, batch); // Printer is no BatchPublisher
/// ```
#[macro_export]
macro_rules! export {
    ($publisher:ty $(, $option:ident)* $(,)?) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$publisher>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            struct Exported;

            impl $crate::Instance for Exported {
                type Publisher = $publisher;

                fn make() -> ::core::result::Result<$publisher, $crate::BoxError> {
                    $crate::export!(@make $publisher $(, $option)*)
                }

                fn with<R>(call: impl ::core::ops::FnOnce(&mut ::core::option::Option<$publisher>) -> R) -> R {
                    INSTANCE.with_borrow_mut(call)
                }
            }

            $crate::export!(@publisher);
            $($crate::export!(@$option);)*
        };
    };

    (@make $publisher:ty) => {
        ::core::result::Result::Ok(<$publisher as ::core::default::Default>::default())
    };
    (@make $publisher:ty, lifecycle $(, $rest:ident)*) => {
        <$publisher as $crate::Lifecycle>::configure()
    };
    (@make $publisher:ty, $other:ident $(, $rest:ident)*) => {
        $crate::export!(@make $publisher $(, $rest)*)
    };

    (@publisher) => {
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::publisher::export!(Exported with_types_in $crate::bindings::publisher);
        const _: fn() = $crate::check_publisher::<Exported>;
    };
    (@batch) => {
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::batch::export!(Exported with_types_in $crate::bindings::batch);
        const _: fn() = $crate::check_batch_publisher::<Exported>;
    };
    (@lifecycle) => {
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::lifecycle::export!(Exported with_types_in $crate::bindings::lifecycle);
    };
    (@$other:ident) => {
        ::core::compile_error!(::core::concat!(
            "`", ::core::stringify!($other), "` is no option of export!: there are `batch` and `lifecycle`",
        ));
    };
}

/// Implemented by `export!`: makes a publisher, and provides the place where the component instance keeps it.
pub trait Instance {
    /// The type that `export!` exports.
    type Publisher: Publisher + 'static;

    /// Makes a publisher, by `Default` or `Lifecycle`.
    fn make() -> Result<Self::Publisher, BoxError>;

    /// Calls `call` with the place of the publisher, which is empty until a publisher was made.
    fn with<R>(call: impl FnOnce(&mut Option<Self::Publisher>) -> R) -> R;
}

/// Checks, on every target, that the publisher can be exported.
pub fn check_publisher<I: Instance>() {}

/// Checks, on every target, that the publisher can be exported with `batch`.
pub fn check_batch_publisher<I: Instance<Publisher: BatchPublisher>>() {}

impl<I: Instance> publisher::exports::outbox::publisher::publisher::Guest for I {
    fn publish(event: contract::Recorded) -> Result<(), contract::PublishError> {
        with_publisher::<I, _>(|publisher| publisher.publish(event.into()))
            .and_then(|answer| answer)
            .map_err(Into::into)
    }
}

impl<I: Instance<Publisher: BatchPublisher>> batch::exports::outbox::publisher::batch_publisher::Guest for I {
    fn publish_batch(events: Vec<contract::Recorded>) -> Vec<Result<(), contract::PublishError>> {
        let events: Vec<Recorded> = events.into_iter().map(Into::into).collect();
        let count = events.len();
        with_publisher::<I, _>(|publisher| publisher.publish_batch(events))
            .unwrap_or_else(|error| vec![Err(error); count])
            .into_iter()
            .map(|answer| answer.map_err(Into::into))
            .collect()
    }
}

impl<I: Instance> lifecycle::exports::outbox::publisher::lifecycle::Guest for I {
    fn configure() -> Result<(), String> {
        let made = I::make().map_err(|error| error.to_string())?;
        I::with(|instance| *instance = Some(made));
        Ok(())
    }
}

/// Calls `call` with the instance's publisher. `configure` makes the publisher, or, without `configure`, the first
/// event.
fn with_publisher<I: Instance, R>(call: impl FnOnce(&mut I::Publisher) -> R) -> Result<R, Error> {
    I::with(|instance| {
        let publisher = match instance {
            Some(publisher) => publisher,
            None => instance.insert(I::make().map_err(Error::unavailable)?),
        };
        Ok(call(publisher))
    })
}

impl From<Error> for contract::PublishError {
    fn from(error: Error) -> Self {
        let (kind, reason, retry_after) = error.into_parts();
        let retry_after_ms = retry_after.map(whole_ms);
        match kind {
            Kind::Retryable => Self::Retryable(contract::Failure { reason, retry_after_ms }),
            Kind::Rejected => Self::Rejected(reason),
            Kind::Unavailable => Self::Unavailable(contract::Failure { reason, retry_after_ms }),
        }
    }
}

/// Milliseconds, rounded up: a destination that asks for 1.5 ms should not be asked again after 1.
fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{
        batch::exports::outbox::publisher::batch_publisher::Guest as _, contract::PublishError,
        lifecycle::exports::outbox::publisher::lifecycle::Guest as _,
        publisher::exports::outbox::publisher::publisher::Guest as _, *,
    };

    #[derive(Default)]
    struct Counter {
        seen: u32,
    }

    impl Publisher for Counter {
        fn publish(&mut self, _: Recorded) -> Result<(), Error> {
            self.seen += 1;
            Err(Error::retryable(self.seen).retry_after(Duration::from_micros(1_500)))
        }
    }

    impl BatchPublisher for Counter {
        fn publish_batch(&mut self, events: Vec<Recorded>) -> Vec<Result<(), Error>> {
            events.into_iter().map(|event| self.publish(event)).collect()
        }
    }

    thread_local! {
        static COUNTER: RefCell<Option<Counter>> = const { RefCell::new(None) };
        static REFUSAL: RefCell<Option<&'static str>> = const { RefCell::new(None) };
    }

    struct Exported;

    impl Instance for Exported {
        type Publisher = Counter;

        fn make() -> Result<Counter, BoxError> {
            REFUSAL.with_borrow(|refusal| refusal.map_or(Ok(Counter::default()), |reason| Err(reason.into())))
        }

        fn with<R>(call: impl FnOnce(&mut Option<Counter>) -> R) -> R {
            COUNTER.with_borrow_mut(call)
        }
    }

    fn event() -> contract::Recorded {
        crate::bindings::example()
    }

    #[test]
    fn one_publisher_serves_all_calls_of_an_instance() {
        for expected in ["1", "2"] {
            let Err(PublishError::Retryable(failure)) = Exported::publish(event()) else {
                panic!("the counter always asks for a retry");
            };
            assert_eq!((failure.reason.as_str(), failure.retry_after_ms), (expected, Some(2)));
        }
        assert_eq!(Exported::publish_batch(vec![event(), event()]).len(), 2);
        assert_eq!(Exported::with(|counter| counter.as_ref().map(|counter| counter.seen)), Some(4));
    }

    #[test]
    fn a_publisher_that_cannot_be_made_is_unavailable_and_refuses_to_configure() {
        REFUSAL.set(Some("TOKEN is missing"));
        assert_eq!(Exported::configure(), Err("TOKEN is missing".to_string()));
        assert!(matches!(Exported::publish(event()), Err(PublishError::Unavailable(_))));
        let answers = Exported::publish_batch(vec![event(), event()]);
        assert!(matches!(answers[..], [Err(PublishError::Unavailable(_)), Err(PublishError::Unavailable(_))]));
    }

    #[test]
    fn a_wait_longer_than_the_contract_can_say_is_the_longest_it_can() {
        assert_eq!(whole_ms(Duration::MAX), u32::MAX);
    }
}

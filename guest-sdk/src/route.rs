use serde::Deserialize;

use crate::{Error, Recorded};

impl Recorded {
    /// Routes this event by its name: calls the first handler whose name fits, with the decoded data. `state` is what
    /// the handlers work on, mostly the publisher itself.
    ///
    /// ```
    /// use outbox_guest::{Error, Publisher, Recorded};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Placed { order: u64 }
    /// #[derive(Deserialize)]
    /// struct Paid { order: u64, cents: u64 }
    ///
    /// #[derive(Default)]
    /// struct Till { cents: u64 }
    ///
    /// impl Publisher for Till {
    ///     fn publish(&mut self, event: Recorded) -> Result<(), Error> {
    ///         event
    ///             .route(self)
    ///             .on("order.placed", |_, placed: Placed| Ok(println!("order {}", placed.order)))
    ///             .on("order.paid", |till, paid: Paid| Ok(till.cents += paid.cents))
    ///             .skip("order.*") // delivered, and nothing is done
    ///             .otherwise(|_, event| Err(Error::rejected(format!("{} is no order's", event.wrapped_event.name))))
    ///     }
    /// }
    ///
    /// let mut till = Till::default();
    /// till.publish(Recorded::example("order.paid", r#"{"order": 7, "cents": 4200}"#))?;
    /// till.publish(Recorded::example("order.shipped", "{}"))?;
    /// assert_eq!(till.cents, 4_200);
    /// assert!(till.publish(Recorded::example("order.paid", "{}")).unwrap_err().is_rejected());
    /// assert!(till.publish(Recorded::example("user.left", "{}")).unwrap_err().is_rejected());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn route<'e, S>(&'e self, state: &'e mut S) -> Route<'e, S> {
        Route { event: self, state, done: None }
    }
}

/// An event on its way to one of several handlers: see [`Recorded::route`].
#[must_use = "it does nothing until `otherwise` or `or_reject` is called"]
pub struct Route<'e, S> {
    event: &'e Recorded,
    state: &'e mut S,
    done: Option<Result<(), Error>>,
}

impl<'e, S> Route<'e, S> {
    /// Calls `handle` with the event's data if the event has this name. If the name ends with `*`, every event whose
    /// name begins with the rest fits. Data that does not decode is rejected.
    pub fn on<T: Deserialize<'e>>(self, name: &str, handle: impl FnOnce(&mut S, T) -> Result<(), Error>) -> Self {
        self.on_event(name, |state, event| handle(state, event.data()?))
    }

    /// The same with the whole event.
    pub fn on_event(mut self, name: &str, handle: impl FnOnce(&mut S, &'e Recorded) -> Result<(), Error>) -> Self {
        if self.done.is_none() && fits(name, &self.event.wrapped_event.name) {
            self.done = Some(handle(self.state, self.event));
        }
        self
    }

    /// Does nothing with such events: they count as delivered.
    pub fn skip(self, name: &str) -> Self {
        self.on_event(name, |_, _| Ok(()))
    }

    /// Handles an event that fitted no handler.
    ///
    /// # Errors
    ///
    /// Those of the handler that was called.
    pub fn otherwise(self, handle: impl FnOnce(&mut S, &'e Recorded) -> Result<(), Error>) -> Result<(), Error> {
        match self.done {
            Some(done) => done,
            None => handle(self.state, self.event),
        }
    }

    /// Rejects an event that fitted no handler.
    ///
    /// # Errors
    ///
    /// Those of the handler that was called; [rejected](Error::rejected) if none was called.
    pub fn or_reject(self) -> Result<(), Error> {
        self.otherwise(|_, event| {
            Err(Error::rejected(format!("nothing is to be done here with {}", event.wrapped_event.name)))
        })
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_handler_that_fits_is_called_and_no_other() {
        let event = Recorded::example("order.paid", "7");
        let mut called = Vec::new();
        let done = event
            .route(&mut called)
            .on("order.placed", |called, number: u64| {
                called.push(("placed", number));
                Ok(())
            })
            .on("order.p*", |called, number: u64| {
                called.push(("p*", number));
                Ok(())
            })
            .on("*", |called, number: u64| {
                called.push(("*", number));
                Ok(())
            })
            .or_reject();
        assert_eq!((done, called), (Ok(()), vec![("p*", 7)]));
    }

    #[test]
    fn what_no_handler_is_for_is_rejected_with_its_name() {
        let event = Recorded::example("order.paid", "7");
        let error = event.route(&mut ()).skip("user.*").or_reject().unwrap_err();
        assert!(error.is_rejected() && error.to_string().contains("order.paid"));
    }
}

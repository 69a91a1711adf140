//! How many tasks a service is to have, and who says so (facts A3, D1 #7 and #8).

use std::fmt;

/// Bounds of a scalable target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) least: u32,
    pub(crate) most: u32,
}

/// What is known when the count is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The document's.
    pub(crate) written: Option<u32>,
    /// The service's, when there is one.
    pub(crate) live: Option<u32>,
    /// Of the scalable target that the service has, or will have when it is made.
    pub(crate) bounds: Option<Bounds>,
    /// `sameAsAlreadyRunningInstances`.
    pub(crate) same: bool,
    /// One task on every instance.
    pub(crate) daemon: bool,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// What is sent; `None` leaves the service as it is.
    pub(crate) send: Option<u32>,
    /// Who decided, for the log.
    pub(crate) why: String,
    /// A person should know that the document was not followed.
    pub(crate) notice: Option<String>,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.send {
            Some(count) => write!(f, "desired count {count}: {}", self.why),
            None => write!(f, "desired count is not sent: {}", self.why),
        }
    }
}

fn clamp(count: u32, bounds: Bounds) -> u32 {
    count.max(bounds.least).min(bounds.most.max(bounds.least))
}

/// Decides.
pub(crate) fn count(known: Known) -> Count {
    let told = |send: Option<u32>, why: String| Count { send, why, notice: None };
    if known.daemon {
        return told(None, "a DAEMON service has one task on every instance".to_owned());
    }
    match (known.live, known.bounds) {
        (Some(live), _) if known.same => {
            told(None, format!("sameAsAlreadyRunningInstances keeps the {live} that the service has"))
        }
        (Some(live), Some(Bounds { least, most })) => {
            let why = format!("autoscaling decides between {least} and {most}; the service has {live}");
            let notice = known.written.filter(|written| *written != live).map(|written| {
                let outside = if written < least || written > most { ", which is outside of these bounds" } else { "" };
                format!(
                    "ecs.count.autoscaling: the document asks for {written} tasks{outside}; the service has a scalable target ({least} to {most}) and keeps its {live}"
                )
            });
            Count { send: None, why, notice }
        }
        (Some(live), None) => match known.written {
            Some(written) => told(Some(written), format!("the document says so; the service has {live}")),
            None => told(None, format!("the document names none; the service keeps its {live}")),
        },
        (None, bounds) => {
            let (wanted, why) = match known.written {
                Some(written) => (written, "the document says so".to_owned()),
                None => (1, "the document names none; a new service begins with one task".to_owned()),
            };
            match bounds {
                Some(bounds) if clamp(wanted, bounds) != wanted => {
                    let send = clamp(wanted, bounds);
                    let why = format!(
                        "the scalable target allows {} to {}, the document asks for {wanted}",
                        bounds.least, bounds.most
                    );
                    Count {
                        send: Some(send),
                        notice: Some(format!("ecs.count.autoscaling: {why}; the service begins with {send}")),
                        why,
                    }
                }
                _ => told(Some(wanted), why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Option<Bounds> = Some(Bounds { least: 2, most: 10 });

    #[test]
    fn each_source_decides_where_it_should() {
        let send = |known: Known| count(known).send;
        let known = Known { written: Some(3), live: Some(5), ..Known::default() };
        assert_eq!(send(known), Some(3));
        assert_eq!(send(Known { same: true, ..known }), None);
        assert_eq!(send(Known { written: None, ..known }), None);
        assert_eq!(send(Known { daemon: true, ..known }), None);
        assert_eq!(send(Known { live: None, ..known }), Some(3));
        assert_eq!(send(Known { live: None, same: true, ..known }), Some(3));
        assert_eq!(send(Known { live: None, written: None, ..known }), Some(1));
    }

    #[test]
    fn autoscaling_goes_before_the_document_and_says_so() {
        let known = Known { written: Some(3), live: Some(7), bounds: BOUNDS, ..Known::default() };
        let decided = count(known);
        assert_eq!(decided.send, None);
        assert!(
            decided
                .notice
                .unwrap()
                .contains("asks for 3 tasks; the service has a scalable target (2 to 10) and keeps its 7")
        );
        assert!(count(Known { written: Some(20), ..known }).notice.unwrap().contains("outside"));
        assert_eq!(count(Known { written: Some(7), ..known }).notice, None);
        let made = count(Known { live: None, written: Some(20), ..known });
        assert_eq!(made.send, Some(10));
        assert!(made.notice.is_some());
    }

    proptest! {
        #[test]
        fn a_service_with_autoscaling_is_never_resized_and_a_new_one_lies_within(
            written in prop::option::of(0..50u32), live in prop::option::of(0..50u32), least in 0..10u32, more in 0..10u32,
            same in any::<bool>(), daemon in any::<bool>(),
        ) {
            let bounds = Bounds { least, most: least + more };
            let decided = count(Known { written, live, bounds: Some(bounds), same, daemon });
            match live {
                Some(_) => prop_assert_eq!(decided.send, None),
                None if daemon => prop_assert_eq!(decided.send, None),
                None => prop_assert!((bounds.least..=bounds.most).contains(&decided.send.unwrap())),
            }
        }
    }
}

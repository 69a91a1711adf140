//! What follows a fault of one try. Pure.

use crate::fault::Fault;
use std::time::Duration;

/// Whether a change may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Sending it twice does what sending it once does (a client token, the same desired state).
    Safe,
    /// It is sent again only when it surely was not carried out: throttled, refused for its credentials, never connected.
    OnlyIfNotReached,
}

/// Longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(10);
/// Longest pause that a server is granted.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// What one call has been through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    /// Faults so far, the one at hand included.
    pub(crate) failed: u32,
    /// Since the first fault.
    pub(crate) waited: Duration,
    /// Whether credentials were fetched anew.
    pub(crate) renewed: bool,
    /// Whether the clock was corrected.
    pub(crate) corrected: bool,
}

/// Bounds of waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) patience: Duration,
    /// Left of the step.
    pub(crate) left: Duration,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GiveUp,
    /// Try again after a pause.
    Wait(Duration),
    /// Fetch credentials anew and try again.
    Renew,
    /// Take the server's time and try again.
    Correct,
}

/// Decides. `jitter` in 0..1 spreads the pause over its upper half; `skewed` tells that the server's time differs so much
/// that it refuses signatures for it.
pub(crate) fn next(
    fault: &Fault,
    repeat: Repeat,
    tries: Tries,
    limits: Limits,
    skewed: bool,
    jitter: f64,
) -> Next {
    if fault.is_expired() {
        // Credentials that were just fetched and are expired stay so.
        return if tries.renewed { Next::GiveUp } else { Next::Renew };
    }
    if skewed && fault.is_about_time() {
        return if tries.corrected { Next::GiveUp } else { Next::Correct };
    }
    let again = fault.may_pass() && (repeat == Repeat::Safe || fault.was_not_carried_out());
    if !again || tries.waited >= limits.patience {
        return Next::GiveUp;
    }
    let first = Duration::from_millis(if fault.is_throttled() { 500 } else { 100 });
    let doubled = first.saturating_mul(1 << tries.failed.saturating_sub(1).min(16)).min(LONGEST);
    let pause = match fault {
        Fault::Refused { retry_after: Some(asked), .. } => (*asked).min(LONGEST_ASKED),
        _ => doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)),
    };
    let pause = pause.min(limits.patience.saturating_sub(tries.waited)).max(Duration::from_millis(1));
    if pause >= limits.left { Next::GiveUp } else { Next::Wait(pause) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Service;

    fn refused(status: u16, code: &str) -> Fault {
        Fault::Refused {
            service: Service::Ecs,
            operation: "UpdateService",
            code: code.to_owned(),
            message: String::new(),
            status,
            request_id: None,
            retry_after: None,
        }
    }

    fn lost(reached: bool) -> Fault {
        Fault::Connection { cause: "gone".into(), reached, source: None }
    }

    const LIMITS: Limits = Limits { patience: Duration::from_secs(60), left: Duration::from_secs(600) };
    const FIRST: Tries = Tries { failed: 1, waited: Duration::ZERO, renewed: false, corrected: false };

    fn first(fault: &Fault, repeat: Repeat) -> Next {
        next(fault, repeat, FIRST, LIMITS, false, 1.0)
    }

    #[test]
    fn what_surely_was_not_carried_out_is_always_sent_again() {
        for fault in [refused(400, "ThrottlingException"), refused(429, ""), lost(false)] {
            for repeat in [Repeat::Safe, Repeat::OnlyIfNotReached] {
                assert!(matches!(first(&fault, repeat), Next::Wait(_)), "{fault:?} {repeat:?}");
            }
        }
    }

    #[test]
    fn what_may_have_been_carried_out_is_sent_again_only_where_that_is_safe() {
        for fault in [
            refused(500, "ServerException"),
            refused(503, ""),
            lost(true),
            Fault::Timeout(Duration::from_secs(1)),
        ] {
            assert!(matches!(first(&fault, Repeat::Safe), Next::Wait(_)), "{fault:?}");
            assert_eq!(first(&fault, Repeat::OnlyIfNotReached), Next::GiveUp, "{fault:?}");
        }
    }

    #[test]
    fn refusals_are_never_repeated() {
        for fault in [
            refused(400, "ClusterNotFoundException"),
            refused(400, "AccessDeniedException"),
            refused(400, "UnrecognizedClientException"),
            Fault::Tls("x".into()),
            Fault::Strange("x".into()),
        ] {
            assert_eq!(first(&fault, Repeat::Safe), Next::GiveUp, "{fault:?}");
        }
    }

    #[test]
    fn credentials_are_renewed_and_the_clock_corrected_once() {
        let expired = refused(400, "ExpiredTokenException");
        assert_eq!(first(&expired, Repeat::OnlyIfNotReached), Next::Renew);
        assert_eq!(
            next(&expired, Repeat::Safe, Tries { renewed: true, ..FIRST }, LIMITS, false, 0.0),
            Next::GiveUp
        );
        let skew = refused(403, "RequestTimeTooSkewed");
        assert_eq!(next(&skew, Repeat::OnlyIfNotReached, FIRST, LIMITS, true, 0.0), Next::Correct);
        assert_eq!(next(&skew, Repeat::Safe, FIRST, LIMITS, false, 0.0), Next::GiveUp);
        assert_eq!(
            next(&skew, Repeat::Safe, Tries { corrected: true, ..FIRST }, LIMITS, true, 0.0),
            Next::GiveUp
        );
    }

    #[test]
    fn pauses_grow_end_with_the_patience_and_never_outlast_the_step() {
        let fault = refused(400, "ThrottlingException");
        let after = |failed, waited, jitter| {
            let tries = Tries { failed, waited: Duration::from_secs(waited), ..FIRST };
            next(&fault, Repeat::Safe, tries, LIMITS, false, jitter)
        };
        assert_eq!(after(1, 0, 1.0), Next::Wait(Duration::from_millis(500)));
        assert_eq!(after(1, 0, 0.0), Next::Wait(Duration::from_millis(250)));
        assert_eq!(after(3, 0, 1.0), Next::Wait(Duration::from_secs(2)));
        assert_eq!(after(40, 0, 1.0), Next::Wait(LONGEST));
        assert_eq!(after(40, 55, 1.0), Next::Wait(Duration::from_secs(5)));
        assert_eq!(after(40, 60, 1.0), Next::GiveUp);
        let short = Limits { left: Duration::from_millis(400), ..LIMITS };
        assert_eq!(next(&fault, Repeat::Safe, FIRST, short, false, 1.0), Next::GiveUp);
    }

    #[test]
    fn a_server_s_wish_is_granted_within_bounds() {
        let mut fault = refused(503, "");
        if let Fault::Refused { retry_after, .. } = &mut fault {
            *retry_after = Some(Duration::from_secs(7));
        }
        assert_eq!(first(&fault, Repeat::Safe), Next::Wait(Duration::from_secs(7)));
    }
}

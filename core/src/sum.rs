//! The sum that travels with a run's state: a bit that changed on the way is seen although the state decodes (G1). A batch has its
//! chain value for that; a register with a wrong order would win over every true one.

use antipode_proto::core as wire;
use bytes::Bytes;
use prost::Message;

/// Which fields a sum covers. Whoever adds a field to a state, a register, a pending event or a verdict raises it: a receiver that does not
/// know the field cannot encode it again, and must not take it for damage.
const FORM: u32 = 5;

/// A state is not the one that was sent (G1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum over the state is not the one that came with it")]
pub struct Changed;

/// The state with its sum, as it travels.
#[must_use]
pub fn sealed(mut state: wire::RunState) -> wire::RunState {
    state.sum_form = FORM;
    state.sum = Bytes::new();
    state.sum = sum_of(&state);
    state
}

/// Compares a received state with its sum. A peer of the previous version sends none.
///
/// # Errors
/// [`Changed`].
pub fn check(state: &wire::RunState) -> Result<(), Changed> {
    if state.sum_form == 0 && !state.sum.is_empty() {
        return Err(Changed); // A length that was hit can swallow the form.
    }
    if state.sum_form != FORM {
        return Ok(());
    }
    let bare = wire::RunState { sum: Bytes::new(), ..state.clone() };
    if state.sum == sum_of(&bare) { Ok(()) } else { Err(Changed) }
}

/// The first 16 bytes of BLAKE3 over a state that has no sum yet.
fn sum_of(bare: &wire::RunState) -> Bytes {
    Bytes::copy_from_slice(&blake3::hash(&bare.encode_to_vec()).as_bytes()[..16])
}

#[cfg(test)]
#[path = "sum_tests.rs"]
mod tests;

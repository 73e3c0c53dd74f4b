// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a handler wants next of whoever owns the agent's connection and the clock.

use serde_json::Value;

use crate::agent::AgentError;
use crate::moment::Moment;

/// A command for the agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// As in `guest-ping`.
    pub command: &'static str,
    /// An object, or null for none.
    pub arguments: Value,
    /// How long its answer is waited for.
    pub until: Moment,
}

/// What a handler wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Need<T> {
    /// Ask the agent, then go on with [`Input::Answer`].
    Call(Call),
    /// Go on with [`Input::Woken`] then.
    WaitUntil(Moment),
    /// Nothing more: this came of it.
    Done(T),
}

/// What a handler goes on with.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Nothing yet: begin.
    Begin,
    /// The answer to the call that it wanted.
    Answer(Result<Value, AgentError>),
    /// The moment has come that it wanted to wait for.
    Woken,
}

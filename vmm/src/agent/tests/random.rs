// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random interleavings of everything that can happen.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Ask(u64),
    Sync(u64),
    HangUp(u64),
    ToAgent(usize),
    Work,
    FromAgent(usize),
    Garbage,
    Restart(bool),
    Stop(bool),
    Read,
    Pass(u64),
}

const CLIENTS: u64 = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CLIENTS).prop_map(Step::Ask),
        1 => (0..CLIENTS).prop_map(Step::Sync),
        1 => (0..CLIENTS).prop_map(Step::HangUp),
        6 => (1usize..200).prop_map(Step::ToAgent),
        6 => Just(Step::Work),
        6 => (1usize..200).prop_map(Step::FromAgent),
        1 => Just(Step::Garbage),
        1 => any::<bool>().prop_map(Step::Restart),
        1 => any::<bool>().prop_map(Step::Stop),
        3 => Just(Step::Read),
        2 => (0u64..2_000).prop_map(|ms| Step::Pass(ms * MS)),
    ]
}

/// A client, and what it may be answered.
#[derive(Debug, Default)]
struct Asker {
    /// Incarnation: each connection is a client of its own.
    life: u64,
    /// Numbers of its requests that are not answered, oldest first; syncs beside the others.
    open: Vec<u64>,
}

#[derive(Debug)]
struct Run {
    world: World,
    askers: Vec<Asker>,
    numbers: u64,
    /// Everything that agents which are gone have executed.
    executed: Vec<String>,
    /// Requests made while the agent that is gone was there.
    past: Vec<String>,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::running(CLIENTS),
            askers: (0..CLIENTS).map(|_| Asker::default()).collect(),
            numbers: 0,
            executed: Vec::new(),
            past: Vec::new(),
        }
    }

    fn asker(&mut self, id: u64) -> &mut Asker {
        &mut self.askers[usize::try_from(id).unwrap()]
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Ask(id) => {
                self.numbers += 1;
                let number = self.numbers;
                let life = self.asker(id).life;
                self.asker(id).open.push(number);
                self.world
                    .ask(id, &mark(&format!("{id}.{life}.{number}"), number));
            }
            Step::Sync(id) => {
                self.numbers += 1;
                let number = self.numbers;
                // What was written for it but not read yet still comes.
                self.read();
                self.asker(id).open = vec![number];
                let arguments = json!({"id": number});
                let request =
                    json!({"execute": "guest-sync", "arguments": arguments, "id": number});
                self.world.ask(id, &request);
            }
            Step::HangUp(id) => {
                self.world.hang_up(id);
                self.world.connect(id);
                let asker = self.asker(id);
                asker.life += 1;
                asker.open.clear();
            }
            Step::ToAgent(count) => drop(self.world.deliver(count)),
            Step::Work => {
                if let Some(agent) = &mut self.world.agent {
                    agent.step();
                }
            }
            Step::FromAgent(count) => drop(self.world.collect_answer(count)),
            Step::Garbage => {
                if self.world.agent.is_some() {
                    self.world
                        .guest_says(b"\nnoise }{\n{\"return\": \"forged\"}\n");
                }
            }
            Step::Restart(reset) => {
                self.stop(reset);
                self.world.start_agent();
            }
            Step::Stop(reset) => self.stop(reset),
            Step::Read => self.read(),
            Step::Pass(time) => self.world.pass(time),
        }
        self.check_epoch();
    }

    fn stop(&mut self, reset: bool) {
        if let Some(agent) = self.world.stop_agent(reset) {
            self.executed.extend(agent.executed);
            let open = self.askers.iter().enumerate().flat_map(|(id, asker)| {
                let life = asker.life;
                asker
                    .open
                    .iter()
                    .map(move |number| format!("{id}.{life}.{number}"))
            });
            self.past.extend(open);
        }
    }

    /// No agent executes what was asked of one before it.
    fn check_epoch(&self) {
        if let Some(agent) = &self.world.agent {
            for text in &agent.executed {
                assert!(!self.past.contains(text), "{text} in a later epoch");
            }
        }
    }

    /// Every answer is to the oldest open request of its own client.
    fn read(&mut self) {
        for id in 0..CLIENTS {
            for reply in self.world.replies(id) {
                let life = self.asker(id).life;
                let number = self.asker(id).open.remove(0);
                assert_eq!(reply["id"], number, "client {id}: {reply}");
                if let Some(text) = reply["return"].as_str() {
                    assert_eq!(text, format!("{id}.{life}.{number}"));
                } else if let Some(sync) = reply["return"].as_u64() {
                    assert_eq!(sync, number);
                } else {
                    assert!(reply["error"]["desc"].is_string(), "{reply}");
                }
            }
        }
    }

    /// In the end everything open is answered, and each request was executed once at most.
    fn finish(mut self) {
        if self.world.agent.is_none() {
            self.world.start_agent();
        }
        for _ in 0..8 {
            self.world.run();
            self.read();
            self.world.pass(5_000 * MS);
        }
        for (id, asker) in self.askers.iter().enumerate() {
            assert!(
                asker.open.is_empty(),
                "client {id} waits for {:?}",
                asker.open
            );
        }
        self.stop(false);
        let mut marks: Vec<_> = self.executed.iter().filter(|it| it.contains('.')).collect();
        marks.sort();
        let count = marks.len();
        marks.dedup();
        assert_eq!(marks.len(), count, "executed twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nobody_gets_what_is_not_his(steps in proptest::collection::vec(step(), 0..200)) {
        let mut run = Run::new();
        for step in &steps {
            run.apply(step);
        }
        run.finish();
    }
}

//! The workers of the model: they start, read, prepare, hang, die and leave.

use super::*;

impl World {
    pub fn worker_starts(&mut self, at: usize) {
        if self.workers[at].alive {
            return;
        }
        let (at_producer, at_sink) = (self.peer(), self.peer());
        let worker = &mut self.workers[at];
        worker.alive = true;
        worker.hung = false;
        worker.at_producer = at_producer;
        worker.at_sink = at_sink;
        worker.attempt = 1;
        worker.to_producer.push_back((at_producer, ToProducer::Hello(1)));
        if self.sink.is_some() {
            worker.to_sink.push_back((at_sink, ToSink::Hello));
        }
    }

    /// A worker dies; of what is on its way, `lost` messages never arrive.
    pub fn worker_dies(&mut self, at: usize, lost: usize) {
        let sink = self.sink.is_some();
        let worker = &mut self.workers[at];
        if !worker.alive {
            return;
        }
        let (to_producer, to_sink) = (worker.at_producer, worker.at_sink);
        let left = worker.to_producer.len().saturating_sub(lost);
        worker.to_producer.truncate(left);
        worker.to_producer.push_back((to_producer, ToProducer::Gone));
        let left = worker.to_sink.len().saturating_sub(lost);
        worker.to_sink.truncate(left);
        if sink {
            worker.to_sink.push_back((to_sink, ToSink::Gone));
        }
        self.forget(at);
    }

    fn forget(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        *worker = Worker {
            to_producer: std::mem::take(&mut worker.to_producer),
            to_sink: std::mem::take(&mut worker.to_sink),
            ..Worker::default()
        };
    }

    /// A worker says goodbye, with or without having done what it holds.
    pub fn worker_leaves(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !worker.alive || worker.hung {
            return;
        }
        worker.to_producer.push_back((worker.at_producer, ToProducer::Bye));
        worker.to_producer.push_back((worker.at_producer, ToProducer::Gone));
        worker.to_sink.push_back((worker.at_sink, ToSink::Gone));
        self.forget(at);
    }

    /// A worker's connection to the sink breaks; it connects anew and begins anew.
    pub fn sink_link_breaks(&mut self, at: usize, lost: usize) {
        let fresh = self.peer();
        let sink = self.sink.is_some();
        let worker = &mut self.workers[at];
        if !worker.alive {
            return;
        }
        let left = worker.to_sink.len().saturating_sub(lost);
        worker.to_sink.truncate(left);
        worker.from_sink.clear();
        worker.grants = 0;
        worker.stamp = None;
        worker.tickets.clear();
        worker.finished = None;
        if sink {
            worker.to_sink.push_back((worker.at_sink, ToSink::Gone));
            worker.to_sink.push_back((fresh, ToSink::Hello));
        }
        worker.at_sink = fresh;
        worker.attempt += 1;
        let hello = ToProducer::Hello(worker.attempt);
        worker.to_producer.push_back((worker.at_producer, hello));
    }

    pub fn hear_producer(&mut self, at: usize) {
        let window = self.setup.window;
        let worker = &mut self.workers[at];
        match worker.from_producer.pop_front() {
            Some(ToWorker::Plan(_, answers)) if answers != worker.attempt => {}
            Some(ToWorker::Plan(stamp, _)) => {
                worker.stamp = Some(stamp);
                worker.tickets.clear();
                worker.finished = None;
                worker.done = window;
                worker.want();
            }
            Some(ToWorker::Ticket(stamp, range)) if worker.stamp == Some(stamp) => {
                worker.tickets.push_back((stamp, range));
                assert!(worker.tickets.len() <= window as usize, "a queue too long");
            }
            _ => {}
        }
    }

    pub fn hear_grant(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.grants += worker.from_sink.pop_front().unwrap_or(0);
    }

    pub fn work(&mut self, at: usize) {
        let half = self.setup.window.div_ceil(2);
        let worker = &mut self.workers[at];
        if !worker.alive || worker.hung {
            return;
        }
        if let Some((stamp, range)) = worker.finished {
            if worker.grants > 0 {
                worker.grants -= 1;
                worker.finished = None;
                worker.to_sink.push_back((worker.at_sink, ToSink::Prepared(stamp, range)));
                worker.ticket_done(half);
            }
            return;
        }
        let Some((stamp, range)) = worker.tickets.pop_front() else { return };
        let hits = |set: &BTreeSet<u64>| range.iter().any(|i| set.contains(&i.0));
        if hits(&self.setup.poison) {
            self.worker_dies(at, 0);
        } else if hits(&self.setup.hang) {
            worker.hung = true;
        } else if hits(&self.setup.bad) {
            for index in range.iter().filter(|i| self.setup.bad.contains(&i.0)) {
                worker
                    .to_producer
                    .push_back((worker.at_producer, ToProducer::Failed(stamp, index.0)));
            }
            worker.ticket_done(half);
        } else {
            worker.finished = Some((stamp, range));
        }
    }
}

impl Worker {
    pub(super) fn ticket_done(&mut self, half: u32) {
        self.done += 1;
        if self.done >= half {
            self.want();
        }
    }

    fn want(&mut self) {
        if let Some(stamp) = self.stamp {
            let want = ToProducer::Want(stamp, std::mem::take(&mut self.done));
            self.to_producer.push_back((self.at_producer, want));
        }
    }
}

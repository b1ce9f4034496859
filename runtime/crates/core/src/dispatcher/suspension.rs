//! The suspension of functions while the store renames them.

use std::time::Duration;

use foldhash::HashSet;

use super::Dispatcher;
use super::function::Function;
use evoke_model::FunctionId;

/// How often the dispatcher checks whether the suspended functions are idle. A reload waits until they are idle. A
/// reload takes much longer than this interval, so the interval hardly delays the reload.
const IDLE_POLL: Duration = Duration::from_millis(5);

impl Dispatcher {
    /// Suspends functions until [`Dispatcher::end_suspension`]. A call of [`Dispatcher::set_functions`] does not end
    /// the suspension. Waits until no delivery of the functions runs, is being loaded, or waits for the commit of its
    /// attempt. The wait is bounded, because each attempt ends at its timeout. Deliveries that did not start stay
    /// pending in the store.
    pub async fn suspend(&self, functions: HashSet<FunctionId>) {
        {
            let mut schedule = self.lock();
            schedule.suspended.clone_from(&functions);
            self.update_all(schedule);
        }
        while !self.are_idle(&functions) {
            tokio::time::sleep(IDLE_POLL).await;
        }
    }

    /// Ends the suspension. The functions load their deliveries from the store again, because the rename may have moved
    /// deliveries to them.
    pub fn end_suspension(&self) {
        let mut schedule = self.lock();
        for id in std::mem::take(&mut schedule.suspended) {
            if let Some(function) = schedule.functions.get_mut(&id) {
                function.load_again();
            }
        }
        self.update_all(schedule);
    }

    /// Returns the number of deliveries of these functions that run now.
    pub fn running_of(&self, functions: &HashSet<FunctionId>) -> u32 {
        let schedule = self.lock();
        functions.iter().filter_map(|id| schedule.functions.get(id)).map(Function::running).sum()
    }

    /// Renames a function in the data that was restored from the last process: the failing functions and the open
    /// circuits. Call this before [`Dispatcher::set_functions`].
    pub fn rename_restored(&self, from: &str, to: &str) {
        let mut schedule = self.lock();
        if let Some(since_ms) = schedule.was_failing.remove(from) {
            schedule.was_failing.entry(to.to_owned()).or_insert(since_ms);
        }
        let was_open = &mut schedule.circuits.was_open;
        if let Some(since_ms) = was_open.remove(from) {
            was_open.entry(to.to_owned()).or_insert(since_ms);
        }
    }

    fn are_idle(&self, functions: &HashSet<FunctionId>) -> bool {
        let mut schedule = self.lock();
        functions.iter().all(|id| schedule.functions.get_mut(id).is_none_or(Function::is_quiet))
    }
}

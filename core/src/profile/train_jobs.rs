//! Which members of profiles have a meaning for TrainJobs.

use super::Profiles;

impl Profiles {
    /// Checks that all members have a meaning for TrainJobs.
    ///
    /// # Errors
    ///
    /// One sentence for each member that has none.
    pub fn check_for_train_jobs(&self) -> Result<(), Vec<String>> {
        let with_time = self.profiles.iter();
        let with_time = with_time.filter(|(_, p)| p.ttl_seconds_after_finished.is_some());
        let wrong: Vec<String> = with_time
            .map(|(name, _)| {
                format!(
                    "profiles.{name}.ttl_seconds_after_finished: not possible with TrainJobs, \
                     which Kubeflow Trainer never deletes; remove it, and delete finished jobs with \
                     DELETE /train/NAME"
                )
            })
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }
}

//! Which part of the seeds this process runs: told by hand, or by what starts it.

/// The `index`-th of `count` parts, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shard {
    /// Which.
    pub(crate) index: u64,
    /// Of how many.
    pub(crate) count: u64,
}

impl Shard {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { index: 0, count: 1 };

    /// Whether it runs the seed that is `offset` behind the first.
    pub(crate) fn runs(self, offset: u64) -> bool {
        offset % self.count == self.index
    }
}

/// `I/N`.
pub(crate) fn parse(text: &str) -> Result<Shard, String> {
    let (index, count) = text.split_once('/').ok_or("write it as 0/8 to 7/8")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    check(number(index)?, number(count)?)
}

fn check(index: u64, count: u64) -> Result<Shard, String> {
    if index < count {
        return Ok(Shard { index, count });
    }
    Err(format!("there is no part {index} of {count}: parts are counted from 0"))
}

/// From the variables that Slurm sets for the tasks of an array, and Kubernetes for the pods of an indexed job, which
/// does not say how many there are.
pub(crate) fn from_environment(
    count: Option<u64>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Shard, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        let Some(text) = variable(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| format!("{name} is {text:?}, which is no number"))
    };
    if let (Some(id), Some(tasks)) = (number("SLURM_ARRAY_TASK_ID")?, number("SLURM_ARRAY_TASK_COUNT")?) {
        let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let offset =
            id.checked_sub(first).ok_or_else(|| format!("task {id} is below the first one, {first}"))?;
        return check(offset / step, tasks);
    }
    let Some(index) = number("JOB_COMPLETION_INDEX")? else {
        return match count {
            None | Some(1) => Ok(Shard::WHOLE),
            Some(count) => {
                Err(format!("which of the {count} parts? give --shard, or run it as an indexed job"))
            }
        };
    };
    let told = match count {
        Some(count) => Some(count),
        None => number("JOB_COMPLETION_COUNT")?,
    };
    let problem = "JOB_COMPLETION_INDEX is set, but nothing says of how many: give --shards, or set JOB_COMPLETION_COUNT";
    check(index, told.ok_or(problem)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Shard, String> {
        let found = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        from_environment(None, found)
    }

    #[test]
    fn parts_come_from_arrays_and_indexed_jobs() {
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "5"),
            ("SLURM_ARRAY_TASK_COUNT", "3"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ];
        assert_eq!(environment(&slurm), Ok(Shard { index: 2, count: 3 }));
        let kubernetes = [("JOB_COMPLETION_INDEX", "4"), ("JOB_COMPLETION_COUNT", "5")];
        assert_eq!(environment(&kubernetes), Ok(Shard { index: 4, count: 5 }));
        assert_eq!(environment(&[]), Ok(Shard::WHOLE));
        assert!(environment(&kubernetes[..1]).is_err_and(|problem| problem.contains("--shards")));
        assert_eq!(parse("2/2").err().as_deref(), Some("there is no part 2 of 2: parts are counted from 0"));
    }

    #[test]
    fn every_seed_is_run_by_one_part() {
        for offset in 0..20 {
            let parts = (0..3).filter(|index| Shard { index: *index, count: 3 }.runs(offset));
            assert_eq!(parts.count(), 1);
        }
    }
}

use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, header_text, segment},
    model::{
        Explain, Instance, InstanceChange, InstanceCreate, InstanceReboot, InstanceRebuild, InstanceResize,
        InstanceStop, InstancesMade, TimelineItem,
    },
};
use bytes::Bytes;
use reqwest::Method;

/// Where to begin in an instance's console log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFrom {
    /// The last so many bytes.
    Tail(u64),
    /// A place that an earlier read ended at.
    Offset(u64),
}

/// What a guest printed, as a stream of bytes.
#[derive(Debug)]
pub struct ConsoleLog {
    client: Client,
    answer: reqwest::Response,
    next_offset: u64,
}

impl ConsoleLog {
    /// More bytes; `None` at the end of what there is now (or, followed, when the server ended it).
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let chunk = self.answer.chunk().await.map_err(|e| self.client.lost(e))?;
        self.next_offset += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(chunk)
    }

    /// Where to go on after what was read.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }
}

impl Client {
    /// Filters: `state`, `name` (`web-*`: beginning so), `image`, `tag` (`k:v`), and for system admins `host` and `all_projects`.
    pub fn instances(&self) -> Listing<Instance> {
        Listing::new(self, "/v1/instances")
    }

    pub async fn instance(&self, instance: &str) -> Result<Instance, ClientError> {
        self.json(&Call::get(format!("/v1/instances/{}", segment(instance)), &[])).await
    }

    pub fn instance_create(&self, request: &InstanceCreate) -> Mutation<Instance> {
        Mutation::new(self, Method::POST, "/v1/instances").body(request)
    }

    /// `count` instances named `name-1` to `name-N`: all or none, or (`fill`) as many as fit.
    pub fn instance_create_many(&self, request: &InstanceCreate, count: u32) -> Mutation<InstancesMade> {
        let request = InstanceCreate { count: Some(count), ..request.clone() };
        Mutation::new(self, Method::POST, "/v1/instances").body(&request)
    }

    pub fn instance_change(&self, instance: &str, change: &InstanceChange) -> Mutation<Instance> {
        Mutation::new(self, Method::PATCH, format!("/v1/instances/{}", segment(instance))).body(change)
    }

    /// `None`: it is gone already (requested to wait for that).
    pub fn instance_delete(&self, instance: &str) -> Mutation<Option<Instance>> {
        Mutation::new(self, Method::DELETE, format!("/v1/instances/{}", segment(instance)))
    }

    fn instance_act(&self, instance: &str, action: &str) -> Mutation<Instance> {
        Mutation::new(self, Method::POST, format!("/v1/instances/{}/{action}", segment(instance)))
    }

    pub fn instance_start(&self, instance: &str) -> Mutation<Instance> {
        self.instance_act(instance, "start")
    }

    pub fn instance_stop(&self, instance: &str, how: InstanceStop) -> Mutation<Instance> {
        self.instance_act(instance, "stop").body(&how)
    }

    pub fn instance_reboot(&self, instance: &str, hard: bool) -> Mutation<Instance> {
        self.instance_act(instance, "reboot").body(&InstanceReboot { hard })
    }

    pub fn instance_pause(&self, instance: &str) -> Mutation<Instance> {
        self.instance_act(instance, "pause")
    }

    pub fn instance_resume(&self, instance: &str) -> Mutation<Instance> {
        self.instance_act(instance, "resume")
    }

    pub fn instance_resize(&self, instance: &str, size: &InstanceResize) -> Mutation<Instance> {
        self.instance_act(instance, "resize").body(size)
    }

    /// With a fresh root disk, from its own image or another.
    pub fn instance_rebuild(&self, instance: &str, image: Option<&str>) -> Mutation<Instance> {
        self.instance_act(instance, "rebuild").body(&InstanceRebuild { image: image.map(str::to_owned) })
    }

    /// What happened to it, oldest first.
    pub fn instance_timeline(&self, instance: &str) -> Listing<TimelineItem> {
        Listing::new(self, format!("/v1/instances/{}/timeline", segment(instance)))
    }

    /// Why it is where it is, or why it isn't running.
    pub async fn instance_explain(&self, instance: &str) -> Result<Explain, ClientError> {
        self.json(&Call::get(format!("/v1/instances/{}/explain", segment(instance)), &[])).await
    }

    /// The console log; `follow` goes on as the guest prints.
    pub async fn instance_log(&self, instance: &str, from: LogFrom, follow: bool) -> Result<ConsoleLog, ClientError> {
        let mut query = vec![match from {
            LogFrom::Tail(bytes) => ("tail_bytes".to_owned(), bytes.to_string()),
            LogFrom::Offset(offset) => ("offset".to_owned(), offset.to_string()),
        }];
        if follow {
            query.push(("follow".to_owned(), "true".to_owned()));
        }
        let mut call = Call::get(format!("/v1/instances/{}/console-log", segment(instance)), &query);
        if follow {
            call.answer_within = None;
        }
        let answer = self.send(&call).await?;
        let said = |name| header_text(&answer, name).parse::<u64>().ok();
        let requested = match from {
            LogFrom::Offset(offset) => offset,
            LogFrom::Tail(_) => 0,
        };
        let next_offset = said("x-offset").unwrap_or(requested);
        Ok(ConsoleLog { client: self.clone(), answer, next_offset })
    }
}

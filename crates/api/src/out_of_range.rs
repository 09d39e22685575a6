//! OFFSET_OUT_OF_RANGE, wherever it is answered: logged with what was asked and what there is, and counted. The client may
//! reset and skip or repeat records now: whoever is on call must be able to see why.

use std::ops::RangeInclusive;

use forebay_log::{OpenTopic, Partition};
use forebay_types::Offset;
use forebay_wire::ErrorCode;

use crate::call::Call;
use crate::context::Context;
use crate::counters::{Beyond, OffsetApi};

/// Who asks, and for what.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    context: &'a Context,
    call: &'a Call<'a>,
    api: OffsetApi,
}

impl<'a> Asker<'a> {
    pub fn new(context: &'a Context, call: &'a Call<'a>, api: OffsetApi) -> Self {
        Self { context, call, api }
    }

    pub fn context(&self) -> &'a Context {
        self.context
    }

    /// The code, once it is logged and counted. `held` is what may be asked for: log start to high watermark.
    pub fn out_of_range(
        &self,
        topic: &OpenTopic,
        partition: &Partition,
        asked: i64,
        held: RangeInclusive<Offset>,
    ) -> ErrorCode {
        let (start, end) = (held.start().get(), held.end().get());
        let beyond = if asked < start { Beyond::LogStart } else { Beyond::LogEnd };
        self.context.counters.out_of_range(self.api, beyond);
        let client = self.call.header.client_id.as_deref().unwrap_or_default();
        let place = format!("{}-{}", topic.row.name, partition.id().partition);
        tracing::warn!(
            partition = place, asked, log_start = start, high_watermark = end, client, peer = %self.call.connection.peer,
            "{} asks for an offset that is {}", self.api.name(), beyond.name()
        );
        ErrorCode::OffsetOutOfRange
    }
}

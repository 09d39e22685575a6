//! Batches as real Kafka makes them, as we make them, and as nobody should.

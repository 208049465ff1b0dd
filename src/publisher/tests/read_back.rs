//! Reading the stream back.

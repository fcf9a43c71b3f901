"""ArrayRecord: `tf.train.Example`, records, reader, writer, `WriteToArrayRecord`."""

"""ArrayRecord: records of `tf.train.Example`s, their reader and writer, and `WriteToArrayRecord`."""

asof-gap 1
before_txid 14
before_us 1705314932703665
after_txid 17
after_us 1705314932703668
reason made up
sum 5bfb621113813ef0

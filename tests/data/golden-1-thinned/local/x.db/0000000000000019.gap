asof-gap 1
before_txid 16
before_us 1705315277480450
after_txid 19
after_us 1705315348618609
reason made up
sum 997f2766ca5aed94

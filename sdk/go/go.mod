module evoke

go 1.27

module {{name}}

go 1.27

require evoke v0.0.0

replace evoke => ./sdk
